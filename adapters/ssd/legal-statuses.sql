-- Legal statuses, also those that are not returned to DfE.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.lega_legal_status_id AS record_id,
       t.lega_person_id AS person_id,
       'N' AS restricted,
       t.lega_legal_status AS legal_status,
       t.lega_legal_status_start_date AS from_date,
       t.lega_legal_status_end_date AS to_date
FROM ssd_legal_status t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.lega_person_id)
ORDER BY t.lega_legal_status_id
