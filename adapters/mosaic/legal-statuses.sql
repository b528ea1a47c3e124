-- Legal statuses. An end in Mosaic is the last day: the day before the next one begins.
-- People whose records are restricted never leave.
SELECT 'mosaic' AS system,
       CAST(t.legal_status_id AS varchar(20)) AS record_id,
       CAST(t.person_id AS varchar(20)) AS person_id,
       t.start_date AS from_date,
       t.end_date AS last_day,
       t.legal_status AS legal_status,
       p.restricted AS restricted
FROM dbo.dm_legal_statuses t
JOIN dbo.dm_persons p ON p.person_id = t.person_id
WHERE (p.restricted IS NULL OR p.restricted <> 'Y')
ORDER BY t.legal_status_id
