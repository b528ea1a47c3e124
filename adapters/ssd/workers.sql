-- Who is responsible for whom, by the worker's number.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.invo_involvements_id AS record_id,
       t.invo_person_id AS person_id,
       'N' AS restricted,
       t.invo_referral_id AS referral_id,
       t.invo_involvement_start_date AS from_date,
       t.invo_involvement_end_date AS to_date,
       t.invo_professional_role_id AS role,
       t.invo_worker_change_reason AS change_reason,
       t.invo_professional_id AS worker_id,
       t.invo_professional_team AS team
FROM ssd_involvements t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.invo_person_id)
ORDER BY t.invo_involvements_id
