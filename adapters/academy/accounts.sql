-- Each council tax account with every property that it is or was for. An account that moved has several rows; which one goes on
-- is told by its vacation_date, which the mappings read: taking any of them gives people an old address.
SELECT CONCAT(a.account_ref, a.account_cd) AS account_reference,
       o.property_ref AS property_ref,
       o.occupation_date AS occupation_date,
       o.vacation_date AS vacation_date,
       a.lead_liab_title AS lead_liab_title,
       a.lead_liab_forename AS lead_liab_forename,
       a.lead_liab_middlename AS lead_liab_middlename,
       a.lead_liab_surname AS lead_liab_surname,
       a.lead_liab_name AS lead_liab_name,
       a.lead_liab_pos AS lead_liab_pos,
       a.paymeth_code AS paymeth_code,
       a.for_addr1 AS for_addr1,
       a.for_addr2 AS for_addr2,
       a.for_addr3 AS for_addr3,
       a.for_addr4 AS for_addr4,
       a.for_postcode AS for_postcode,
       p.addr1 AS addr1,
       p.addr2 AS addr2,
       p.addr3 AS addr3,
       p.addr4 AS addr4,
       p.postcode AS post_code,
       p.uprn AS uprn,
       p.band_010493 AS band
FROM dbo.ctaccount a
JOIN dbo.ctoccupation o ON o.account_ref = a.account_ref
JOIN dbo.ctproperty p ON p.property_ref = o.property_ref
ORDER BY a.account_ref, o.property_ref, o.occupation_date
