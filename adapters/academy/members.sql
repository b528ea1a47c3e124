-- The people of each household. The join is by claim and household: by claim alone it would mix up the periods.
SELECT CONCAT(m.claim_id, c.check_digit) AS claim_reference,
       m.house_id AS house_id,
       m.member_id AS member_id,
       m.person_ref AS person_ref,
       m.type AS member_type,
       m.title AS title,
       m.forename AS forename,
       m.surname AS surname,
       m.birth_date AS birth_date,
       m.gender AS gender,
       m.nino AS nino,
       m.deceased_date AS deceased_date,
       h.from_date AS from_date,
       h.to_date AS to_date
FROM dbo.hbmember m
JOIN dbo.hbhousehold h ON h.claim_id = m.claim_id AND h.house_id = m.house_id
JOIN dbo.hbclaim c ON c.claim_id = m.claim_id
ORDER BY m.claim_id, m.house_id, m.member_id
