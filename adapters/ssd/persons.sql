-- People. Names are not read. LENGTH is PostgreSQL's; in SQL Server it is LEN.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.pers_person_id AS record_id,
       t.pers_person_id AS person_id,
       'N' AS restricted,
       t.pers_dob AS birth_date,
       t.pers_expected_dob AS expected_date,
       t.pers_death_date AS death_date,
       t.pers_sex AS sex,
       t.pers_ethnicity AS ethnicity,
       CASE WHEN LENGTH(t.pers_upn) = 13 THEN t.pers_upn END AS upn,
       t.pers_legacy_id AS legacy_id
FROM ssd_person t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.pers_person_id)
ORDER BY t.pers_person_id
