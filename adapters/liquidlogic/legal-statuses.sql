-- Legal statuses, in words.
-- People in packhorse_restricted never leave: a view of the council's own. Without it the query fails and nothing is sent.
-- -1 is none in every key; rows of nobody (DIM_PERSON_ID -1) are left out.
SELECT 'liquidlogic' AS system,
       CAST(t.FACT_LEGAL_STATUS_ID AS varchar(20)) AS record_id,
       CAST(t.DIM_PERSON_ID AS varchar(20)) AS person_id,
       'N' AS restricted,
       t.START_DTTM AS from_date,
       t.END_DTTM AS to_date,
       t.DIM_LOOKUP_LGL_STATUS_DESC AS legal_status
FROM HDM.Child_Social.FACT_LEGAL_STATUS t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.DIM_PERSON_ID)
  AND t.DIM_PERSON_ID <> -1
ORDER BY t.FACT_LEGAL_STATUS_ID
