-- Referrals. A closure is a day of its own and no last day.
-- People whose records are restricted never leave.
SELECT 'mosaic' AS system,
       CAST(t.referral_id AS varchar(20)) AS record_id,
       CAST(t.person_id AS varchar(20)) AS person_id,
       t.referral_date AS from_date,
       t.closure_date AS to_date,
       p.restricted AS restricted
FROM dbo.dm_cin_referrals t
JOIN dbo.dm_persons p ON p.person_id = t.person_id
WHERE (p.restricted IS NULL OR p.restricted <> 'Y')
ORDER BY t.referral_id
