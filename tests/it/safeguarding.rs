//! Children's social care by SQL: the Standard Safeguarding Dataset and Mosaic's reporting tables as public descriptions have them,
//! in a real PostgreSQL. Restricted people never leave; an end that is the last day comes out as the day after.

use crate::{
    benefits::{baselines, copied, everywhere, reading, told},
    databases::Database,
};

const DATASET: &str = "
CREATE TABLE ssd_person (pers_person_id varchar(48), pers_legacy_id varchar(48), pers_dob timestamp, pers_expected_dob timestamp, pers_death_date timestamp,
  pers_sex varchar(20), pers_ethnicity varchar(48), pers_upn varchar(13));
CREATE TABLE ssd_cin_episodes (cine_referral_id varchar(48), cine_person_id varchar(48), cine_referral_date timestamp, cine_close_date timestamp,
  cine_cin_primary_need_code varchar(3), cine_referral_source_code varchar(48), cine_referral_nfa char(1), cine_close_reason varchar(100),
  cine_referral_worker_id varchar(100), cine_referral_team varchar(48));
CREATE TABLE ssd_cin_assessments (cina_assessment_id varchar(48), cina_person_id varchar(48), cina_referral_id varchar(48), cina_assessment_start_date timestamp,
  cina_assessment_auth_date timestamp, cina_assessment_child_seen char(1), cina_assessment_outcome_nfa char(1), cina_assessment_worker_id varchar(100), cina_assessment_team varchar(48));
CREATE TABLE ssd_cin_plans (cinp_cin_plan_id varchar(48), cinp_referral_id varchar(48), cinp_person_id varchar(48), cinp_cin_plan_start timestamp,
  cinp_cin_plan_end timestamp, cinp_cin_plan_team varchar(48), cinp_cin_plan_worker_id varchar(100));
CREATE TABLE ssd_cp_plans (cppl_cp_plan_id varchar(48), cppl_referral_id varchar(48), cppl_person_id varchar(48), cppl_cp_plan_start_date timestamp,
  cppl_cp_plan_end_date timestamp, cppl_cp_plan_initial_category varchar(100), cppl_cp_plan_latest_category varchar(100));
CREATE TABLE ssd_cla_episodes (clae_cla_episode_id varchar(48), clae_person_id varchar(48));
CREATE TABLE ssd_cla_placement (clap_cla_placement_id varchar(48), clap_cla_episode_id varchar(48), clap_cla_placement_start_date timestamp, clap_cla_placement_end_date timestamp,
  clap_cla_placement_type varchar(100), clap_cla_placement_provider varchar(48), clap_cla_placement_urn varchar(48), clap_cla_placement_postcode varchar(8),
  clap_cla_placement_change_reason varchar(100));
CREATE TABLE ssd_legal_status (lega_legal_status_id varchar(48), lega_person_id varchar(48), lega_legal_status varchar(100), lega_legal_status_start_date timestamp, lega_legal_status_end_date timestamp);
CREATE TABLE ssd_involvements (invo_involvements_id varchar(48), invo_professional_id varchar(48), invo_professional_role_id varchar(200), invo_professional_team varchar(48),
  invo_involvement_start_date timestamp, invo_involvement_end_date timestamp, invo_worker_change_reason varchar(200), invo_person_id varchar(48), invo_referral_id varchar(48));
CREATE TABLE packhorse_restricted (person_id varchar(48));
INSERT INTO packhorse_restricted VALUES ('P3');
INSERT INTO ssd_person SELECT 'P' || n, NULL, '2014-03-12', NULL, NULL, 'F', 'WBRI', 'X330123456789' FROM generate_series(1, 10) n;
INSERT INTO ssd_cin_episodes SELECT 'R' || n, 'P' || n, '2026-03-02', NULL, 'N1', '1A', 'N', NULL, 'W204', 'Assessment East' FROM generate_series(1, 10) n;
INSERT INTO ssd_cla_episodes SELECT 'E' || n, 'P' || n FROM generate_series(1, 10) n;
INSERT INTO ssd_cla_placement SELECT 'C' || n, 'E' || n, '2026-03-02', NULL, 'U6', 'PR4', 'SC034417', 'EX1 4ZZ', NULL FROM generate_series(1, 10) n;
INSERT INTO ssd_cin_assessments SELECT 'A' || n, 'P' || n, 'R' || n, '2026-03-02', '2026-04-13', 'Y', 'N', 'W204', NULL FROM generate_series(1, 10) n;
INSERT INTO ssd_cin_plans SELECT 'N' || n, 'R' || n, 'P' || n, '2026-04-14', NULL, NULL, NULL FROM generate_series(5, 10) n;
INSERT INTO ssd_cp_plans SELECT 'CP' || n, 'R' || n, 'P' || n, '2026-04-14', NULL, 'Neglect', NULL FROM generate_series(5, 10) n;
INSERT INTO ssd_involvements SELECT 'I' || n, 'W204', 'Allocated worker', NULL, '2026-03-02', NULL, 'MANAGE', 'P' || n, 'R' || n FROM generate_series(5, 10) n;
INSERT INTO ssd_legal_status SELECT 'L' || n, 'P' || n, 'C2', '2026-03-02', NULL FROM generate_series(1, 10) n;
";

const STATEMENTS: [&str; 8] = [
    "persons.sql",
    "referrals.sql",
    "assessments.sql",
    "need-plans.sql",
    "protection-plans.sql",
    "placements.sql",
    "legal-statuses.sql",
    "workers.sql",
];

fn pair(kind: &str, person: &str) -> (String, String) {
    (format!("social-care.{kind}.changed.v1"), person.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dataset_tells_what_has_changed_and_nothing_of_people_who_are_restricted() {
    let database = Database::new().await;
    database.sql(DATASET).await;
    database
        .sql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}", database.role("reader")))
        .await;
    let site = reading(&database, "ssd").await;
    let bridge = site.start().await;
    baselines(&site, &STATEMENTS).await;
    // The same changes for P2 and for P3, who is restricted.
    database
        .sql(
            "UPDATE ssd_cin_episodes SET cine_close_date = '2026-11-20', cine_close_reason = 'RC8' WHERE cine_person_id IN ('P2', 'P3');
             INSERT INTO ssd_cin_assessments SELECT 'AA' || n, 'P' || n, 'R' || n, '2026-11-02', NULL, 'Y', 'N', '-1', NULL FROM generate_series(2, 3) n;
             INSERT INTO ssd_cin_plans SELECT 'N' || n, 'R' || n, 'P' || n, '2026-11-02', NULL, NULL, NULL FROM generate_series(2, 3) n;
             INSERT INTO ssd_cp_plans SELECT 'CP' || n, 'R' || n, 'P' || n, '2026-11-02', NULL, 'Neglect', NULL FROM generate_series(2, 3) n;
             UPDATE ssd_cla_placement SET clap_cla_placement_end_date = '2026-11-20' WHERE clap_cla_episode_id IN ('E2', 'E3');
             UPDATE ssd_legal_status SET lega_legal_status_end_date = '2026-11-20' WHERE lega_person_id IN ('P2', 'P3');
             INSERT INTO ssd_involvements SELECT 'I' || n, 'W204', 'Allocated worker', NULL, '2026-11-02', NULL, 'MANAGE', 'P' || n, 'R' || n FROM generate_series(2, 3) n;",
        )
        .await;
    let events = site.vhost.until("platform", 7).await;
    assert_eq!(
        told(&events, "person_id"),
        [
            pair("assessment", "P2"),
            pair("legal-status", "P2"),
            pair("placement", "P2"),
            pair("plan", "P2"),
            pair("plan", "P2"),
            pair("referral", "P2"),
            pair("worker", "P2"),
        ]
    );
    let of =
        |kind: &str| events.iter().find(|event| event.json()["type"] == kind).unwrap().json()["data"].clone();
    assert_eq!(of("social-care.placement.changed.v1")["until"], "2026-11-20");
    assert!(of("social-care.assessment.changed.v1")["worker_id"].is_null(), "-1 is none");
    // Somebody becomes restricted: what was told is gone, by its number and nothing else.
    database.sql("INSERT INTO packhorse_restricted VALUES ('P4')").await;
    let events = site.vhost.until("platform", 12).await;
    let gone: Vec<_> = events.iter().filter(|event| event.json()["data"]["person_id"] == "P4").collect();
    assert_eq!(gone.len(), 5, "person, referral, assessment, placement and legal status");
    for event in gone {
        let data = event.json()["data"].clone();
        assert_eq!(data["change"], "removed");
        assert_eq!(data.as_object().unwrap().len(), 5, "{data}");
    }
    assert!(!events.iter().any(|event| String::from_utf8_lossy(&event.body).contains("\"P3\"")));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_mosaic_is_the_last_day_and_a_restricted_record_never_leaves() {
    let database = Database::new().await;
    database
        .sql(
            "CREATE SCHEMA dbo;
             CREATE TABLE dbo.dm_persons (person_id bigint, date_of_birth timestamp, date_of_death timestamp, gender varchar(1), full_ethnicity_code varchar(33),
               upn_id varchar(13), person_id_legacy varchar(16), restricted varchar(1));
             CREATE TABLE dbo.dm_cin_referrals (referral_id bigint, person_id bigint, referral_date timestamp, closure_date timestamp);
             CREATE TABLE dbo.dm_legal_statuses (legal_status_id bigint, person_id bigint, legal_status varchar(100), start_date timestamp, end_date timestamp);
             CREATE TABLE dbo.dm_cla_summaries (person_id bigint, start_date timestamp, end_date timestamp, period_of_care_id bigint, legal_status_id bigint,
               placement_id bigint, placement_split_number int, element_detail_id bigint, service_split_number int);
             CREATE TABLE dbo.dm_placements (placement_id bigint, split_number int, placement_type varchar(10), reason_for_placement_change varchar(100));
             INSERT INTO dbo.dm_persons SELECT n, '2014-03-12', NULL, 'F', 'WBRI', NULL, NULL, CASE n WHEN 3 THEN 'Y' WHEN 4 THEN 'N' END FROM generate_series(1, 10) n;
             INSERT INTO dbo.dm_cin_referrals SELECT 500 + n, n, '2026-03-02', NULL FROM generate_series(1, 10) n;
             INSERT INTO dbo.dm_legal_statuses SELECT 900 + n, n, 'C2', '2026-03-02', NULL FROM generate_series(1, 10) n;
             INSERT INTO dbo.dm_placements SELECT 700 + n, 1, 'U6', NULL FROM generate_series(1, 10) n;
             INSERT INTO dbo.dm_cla_summaries SELECT n, '2026-03-02', NULL, 800 + n, 900 + n, 700 + n, 1, 600 + n, 1 FROM generate_series(1, 10) n;",
        )
        .await;
    let reader = database.role("reader");
    database
        .sql(&format!(
            "GRANT USAGE ON SCHEMA dbo TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA dbo TO {reader}"
        ))
        .await;
    let site = reading(&database, "mosaic").await;
    let bridge = site.start().await;
    baselines(&site, &["persons.sql", "referrals.sql", "legal-statuses.sql", "placements.sql"]).await;
    // The legal status changes, the placement goes on: its summary is cut in two, and the placement is none the wiser.
    database
        .sql(
            "UPDATE dbo.dm_legal_statuses SET end_date = '2026-11-19' WHERE person_id IN (2, 3);
             INSERT INTO dbo.dm_legal_statuses VALUES (992, 2, 'E1', '2026-11-20', NULL), (993, 3, 'E1', '2026-11-20', NULL);
             UPDATE dbo.dm_cla_summaries SET end_date = '2026-11-19' WHERE person_id IN (2, 3);
             INSERT INTO dbo.dm_cla_summaries SELECT n, '2026-11-20', NULL, 800 + n, 990 + n, 700 + n, 1, 600 + n, 1 FROM generate_series(2, 3) n;",
        )
        .await;
    let events = site.vhost.until("platform", 2).await;
    assert_eq!(told(&events, "person_id"), [pair("legal-status", "2"), pair("legal-status", "2")]);
    let at = |status: &str, field: &str| {
        let found = events
            .iter()
            .map(|event| event.json()["data"].clone())
            .find(|data| data["legal_status"] == status);
        found.unwrap()[field].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((at("C2", "until"), at("E1", "from")), ("2026-11-20".to_owned(), "2026-11-20".to_owned()));
    bridge.stop().await;
}

/// There is no SQL Server here: PostgreSQL takes the queries as they are, but for the name of the database before the schema, and
/// with a function `LEN`. What this shows is that they are sound and fit their mappings, not that the tables are so.
#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_liquidlogic_are_sound_and_a_restricted_person_never_leaves() {
    let database = Database::new().await;
    database
        .sql(
            "CREATE SCHEMA child_social;
             CREATE FUNCTION len(varchar) RETURNS int LANGUAGE sql AS 'SELECT length($1)';
             CREATE TABLE packhorse_restricted (person_id bigint);
             CREATE TABLE child_social.dim_person (dim_person_id bigint, legacy_id varchar(16), birth_dttm timestamp, death_dttm timestamp, dob_estimated varchar(1),
               gender_main_code varchar(20), ethnicity_main_code varchar(20), upn varchar(20));
             CREATE TABLE child_social.fact_referrals (fact_referral_id bigint, dim_person_id bigint, refrl_start_dttm timestamp, refrl_end_dttm timestamp,
               dim_lookup_category_of_need_code varchar(20), outcome_nfa_flag varchar(1), dim_lookup_refrl_endrsn_id_code varchar(20), dim_department_id bigint);
             CREATE TABLE child_social.fact_cla_placement (fact_cla_placement_id bigint, dim_person_id bigint, fact_cla_id bigint, start_dttm timestamp, end_dttm timestamp,
               dim_lookup_placement_type_code varchar(20), dim_lookup_placement_provider_code varchar(20), postcode varchar(10), dim_lookup_plac_chng_reas_code varchar(20));
             CREATE TABLE child_social.fact_legal_status (fact_legal_status_id bigint, dim_person_id bigint, start_dttm timestamp, end_dttm timestamp,
               dim_lookup_lgl_status_desc varchar(200));
             CREATE TABLE child_social.fact_involvements (fact_involvements_id bigint, dim_person_id bigint, fact_referral_id bigint, start_dttm timestamp, end_dttm timestamp,
               dim_lookup_involvement_type_code varchar(20), dim_lookup_cwreason_code varchar(20), dim_worker_id bigint);
             INSERT INTO packhorse_restricted VALUES (3);
             INSERT INTO child_social.dim_person SELECT n, NULL, '2014-03-12', NULL, 'N', 'F', 'WBRI', 'X330123456789' FROM generate_series(1, 10) n;
             INSERT INTO child_social.dim_person VALUES (-1);
             INSERT INTO child_social.fact_referrals SELECT 500 + n, n, '2026-03-02', NULL, 'N1', 'N', NULL, -1 FROM generate_series(1, 10) n;
             INSERT INTO child_social.fact_cla_placement SELECT 700 + n, n, 800 + n, '2026-03-02', NULL, 'U6', 'PR1', 'ZZZ', NULL FROM generate_series(1, 10) n;
             INSERT INTO child_social.fact_legal_status SELECT 900 + n, n, '2026-03-02', NULL, 'Interim care order' FROM generate_series(1, 10) n;
             INSERT INTO child_social.fact_involvements SELECT 300 + n, n, 500 + n, '2026-03-02', NULL, 'ALLOC', NULL, 42 FROM generate_series(1, 10) n;",
        )
        .await;
    let reader = database.role("reader");
    database
        .sql(&format!(
            "GRANT USAGE ON SCHEMA child_social TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA child_social, public TO {reader}"
        ))
        .await;
    let site = copied(&database).await;
    let adapter = "adapters/liquidlogic.toml";
    everywhere(&site, adapter, "every = \"1h\"", "every = \"200ms\"");
    everywhere(
        &site,
        adapter,
        "database = \"odbc\"\nconnection = ",
        "database = \"postgres\"\naddress = \"{{ settings.server }}\"\nname = \"{{ settings.database }}\"\nusername = \"{{ settings.username }}\"\n# ",
    );
    let statements = ["persons.sql", "referrals.sql", "placements.sql", "legal-statuses.sql", "workers.sql"];
    for statement in statements {
        everywhere(&site, &format!("adapters/liquidlogic/{statement}"), "HDM.Child_Social.", "Child_Social.");
    }
    let settings = database.settings("reader").replace("[adapters.records]", "[adapters.liquidlogic]");
    site.settings(
        &site.vhost.address(),
        &settings.replace("user =", "username =").replace("address =", "server ="),
    );
    let bridge = site.start().await;
    baselines(&site, &statements).await;
    database
        .sql("UPDATE child_social.fact_cla_placement SET end_dttm = '2026-11-19', dim_lookup_plac_chng_reas_code = 'PLAN' WHERE dim_person_id IN (2, 3)")
        .await;
    let events = site.vhost.until("platform", 1).await;
    assert_eq!(told(&events, "person_id"), [pair("placement", "2")]);
    let data = events[0].json()["data"].clone();
    assert_eq!(
        (data["until"].as_str(), data["placement"].as_str()),
        (Some("2026-11-19"), Some("U6")),
        "{data}"
    );
    // Who becomes restricted is told as removed, by number, and nothing more.
    database.sql("INSERT INTO packhorse_restricted VALUES (4)").await;
    let events = site.vhost.until("platform", 6).await;
    let gone: Vec<_> = events
        .iter()
        .map(|event| event.json()["data"].clone())
        .filter(|data| data["change"] == "removed")
        .collect();
    assert_eq!(gone.len(), 5);
    assert!(gone.iter().all(|data| data["person_id"] == "4"), "{gone:?}");
    bridge.stop().await;
}
