-- People. Names are not read. An estimated date of birth is the expected one of a child that is not born.
-- People in packhorse_restricted never leave: a view of the council's own. Without it the query fails and nothing is sent.
-- -1 is none in every key; rows of nobody (DIM_PERSON_ID -1) are left out.
SELECT 'liquidlogic' AS system,
       CAST(t.DIM_PERSON_ID AS varchar(20)) AS record_id,
       CAST(t.DIM_PERSON_ID AS varchar(20)) AS person_id,
       'N' AS restricted,
       CASE WHEN t.DOB_ESTIMATED = 'Y' THEN NULL ELSE t.BIRTH_DTTM END AS birth_date,
       CASE WHEN t.DOB_ESTIMATED = 'Y' THEN t.BIRTH_DTTM END AS expected_date,
       t.DEATH_DTTM AS death_date,
       t.GENDER_MAIN_CODE AS sex,
       t.ETHNICITY_MAIN_CODE AS ethnicity,
       CASE WHEN LEN(t.UPN) = 13 THEN t.UPN END AS upn,
       CAST(t.LEGACY_ID AS varchar(48)) AS legacy_id
FROM HDM.Child_Social.DIM_PERSON t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.DIM_PERSON_ID)
  AND t.DIM_PERSON_ID <> -1
ORDER BY t.DIM_PERSON_ID
