-- Child protection plans.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.cppl_cp_plan_id AS record_id,
       t.cppl_person_id AS person_id,
       'N' AS restricted,
       'child-protection' AS kind,
       t.cppl_referral_id AS referral_id,
       t.cppl_cp_plan_start_date AS from_date,
       t.cppl_cp_plan_end_date AS to_date,
       t.cppl_cp_plan_initial_category AS first_category,
       t.cppl_cp_plan_latest_category AS latest_category
FROM ssd_cp_plans t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.cppl_person_id)
ORDER BY t.cppl_cp_plan_id
