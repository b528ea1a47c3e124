-- Child in need plans.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.cinp_cin_plan_id AS record_id,
       t.cinp_person_id AS person_id,
       'N' AS restricted,
       'child-in-need' AS kind,
       t.cinp_referral_id AS referral_id,
       t.cinp_cin_plan_start AS from_date,
       t.cinp_cin_plan_end AS to_date,
       t.cinp_cin_plan_worker_id AS worker_id,
       t.cinp_cin_plan_team AS team
FROM ssd_cin_plans t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.cinp_person_id)
ORDER BY t.cinp_cin_plan_id
