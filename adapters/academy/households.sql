-- The periods of each claim at an address, with the claim's number as people quote it.
SELECT CONCAT(h.claim_id, c.check_digit) AS claim_reference,
       h.house_id AS house_id,
       h.from_date AS from_date,
       h.to_date AS to_date,
       h.addr1 AS addr1,
       h.addr2 AS addr2,
       h.addr3 AS addr3,
       h.addr4 AS addr4,
       h.post_code AS post_code,
       h.uprn AS uprn
FROM dbo.hbhousehold h
JOIN dbo.hbclaim c ON c.claim_id = h.claim_id
ORDER BY h.claim_id, h.house_id
