-- Placements, from the summaries of looked-after periods: one of each placement, split and carer. An end in Mosaic is the last day.
-- A legal status that changes makes another summary of the same placement, so they are brought together.
-- People whose records are restricted never leave.
SELECT 'mosaic' AS system,
       CONCAT(s.placement_id, '-', s.placement_split_number, '-', s.element_detail_id, '-', s.service_split_number) AS record_id,
       CAST(s.person_id AS varchar(20)) AS person_id,
       CAST(s.period_of_care_id AS varchar(20)) AS episode_id,
       MIN(s.start_date) AS from_date,
       CASE WHEN COUNT(s.end_date) = COUNT(*) THEN MAX(s.end_date) END AS last_day,
       t.placement_type AS placement,
       t.reason_for_placement_change AS end_reason,
       p.restricted AS restricted
FROM dbo.dm_cla_summaries s
JOIN dbo.dm_placements t ON t.placement_id = s.placement_id AND t.split_number = s.placement_split_number
JOIN dbo.dm_persons p ON p.person_id = s.person_id
WHERE (p.restricted IS NULL OR p.restricted <> 'Y')
GROUP BY s.placement_id, s.placement_split_number, s.element_detail_id, s.service_split_number, s.person_id, s.period_of_care_id,
         t.placement_type, t.reason_for_placement_change, p.restricted
ORDER BY s.person_id, s.placement_id, s.placement_split_number, s.element_detail_id, s.service_split_number
