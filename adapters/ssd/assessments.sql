-- Assessments. What they say (the outcome as JSON, with comments) is not read.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.cina_assessment_id AS record_id,
       t.cina_person_id AS person_id,
       'N' AS restricted,
       t.cina_referral_id AS referral_id,
       t.cina_assessment_start_date AS from_date,
       t.cina_assessment_auth_date AS authorised_date,
       t.cina_assessment_child_seen AS child_seen,
       t.cina_assessment_outcome_nfa AS no_further_action,
       t.cina_assessment_worker_id AS worker_id,
       t.cina_assessment_team AS team
FROM ssd_cin_assessments t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.cina_person_id)
ORDER BY t.cina_assessment_id
