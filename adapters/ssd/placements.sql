-- Placements. Whose a placement is stands in its episode.
-- People in packhorse_restricted never leave: a view of the council's own, for the Standard Safeguarding Dataset has no such flag.
-- Without the view the query fails and nothing is sent.
SELECT 'ssd' AS system,
       t.clap_cla_placement_id AS record_id,
       e.clae_person_id AS person_id,
       'N' AS restricted,
       t.clap_cla_episode_id AS episode_id,
       t.clap_cla_placement_start_date AS from_date,
       t.clap_cla_placement_end_date AS to_date,
       t.clap_cla_placement_type AS placement,
       t.clap_cla_placement_provider AS provider,
       t.clap_cla_placement_urn AS urn,
       t.clap_cla_placement_postcode AS postcode,
       t.clap_cla_placement_change_reason AS end_reason
FROM ssd_cla_placement t
JOIN ssd_cla_episodes e ON e.clae_cla_episode_id = t.clap_cla_episode_id
WHERE NOT EXISTS (SELECT 1 FROM packhorse_restricted r WHERE r.person_id = e.clae_person_id)
ORDER BY t.clap_cla_placement_id
