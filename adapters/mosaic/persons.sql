-- People. Names and addresses are not read.
-- People whose records are restricted never leave.
SELECT 'mosaic' AS system,
       CAST(p.person_id AS varchar(20)) AS record_id,
       CAST(p.person_id AS varchar(20)) AS person_id,
       p.date_of_birth AS birth_date,
       p.date_of_death AS death_date,
       p.gender AS sex,
       p.full_ethnicity_code AS ethnicity,
       p.upn_id AS upn,
       p.person_id_legacy AS legacy_id,
       p.restricted AS restricted
FROM dbo.dm_persons p
WHERE (p.restricted IS NULL OR p.restricted <> 'Y')
ORDER BY p.person_id
