-- Referrals, each with the period in need that it began.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.cine_referral_id AS record_id,
       t.cine_person_id AS person_id,
       'N' AS restricted,
       t.cine_referral_date AS from_date,
       t.cine_close_date AS to_date,
       t.cine_cin_primary_need_code AS need,
       t.cine_referral_source_code AS source,
       t.cine_referral_nfa AS no_further_action,
       t.cine_close_reason AS end_reason,
       t.cine_referral_worker_id AS worker_id,
       t.cine_referral_team AS team
FROM ssd_cin_episodes t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.cine_person_id)
ORDER BY t.cine_referral_id
