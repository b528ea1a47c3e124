-- Referrals. The worker is told by a description there, which holds a name: it is not read.
-- People in packhorse_restricted never leave: a view of the council's own. Without it the query fails and nothing is sent.
-- -1 is none in every key; rows of nobody (DIM_PERSON_ID -1) are left out.
SELECT 'liquidlogic' AS system,
       CAST(t.FACT_REFERRAL_ID AS varchar(20)) AS record_id,
       CAST(t.DIM_PERSON_ID AS varchar(20)) AS person_id,
       'N' AS restricted,
       t.REFRL_START_DTTM AS from_date,
       t.REFRL_END_DTTM AS to_date,
       t.DIM_LOOKUP_CATEGORY_OF_NEED_CODE AS need,
       t.OUTCOME_NFA_FLAG AS no_further_action,
       t.DIM_LOOKUP_REFRL_ENDRSN_ID_CODE AS end_reason,
       CAST(t.DIM_DEPARTMENT_ID AS varchar(100)) AS team
FROM HDM.Child_Social.FACT_REFERRALS t
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = t.DIM_PERSON_ID)
  AND t.DIM_PERSON_ID <> -1
ORDER BY t.FACT_REFERRAL_ID
