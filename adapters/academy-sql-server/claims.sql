-- Every claim, archived ones too: what is new, changed or gone is found by comparing with the last time. Plain SQL that SQL
-- Server, Academy's own database, and PostgreSQL, a council's copy of it, both take. No date is compared here: 2099-12-31 is a
-- date in one and text in the other, and the mappings know both.
SELECT CONCAT(c.claim_id, c.check_digit) AS claim_reference,
       c.status_ind AS status_ind,
       c.nino AS nino,
       c.application_date AS application_date,
       c.applic_recvd_date AS applic_recvd_date,
       c.review_date AS review_date,
       c.cancel_date AS cancel_date,
       c.hb_end_reason AS hb_end_reason,
       c.susp_reason_code AS susp_reason_code,
       c.hb_claim_source AS hb_claim_source
FROM dbo.hbclaim c
ORDER BY c.claim_id
