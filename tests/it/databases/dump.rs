//! A whole view in a file, from one snapshot, in bounded memory.

use super::{Database, HEAD, READ};
use crate::support::Site;
use packhorse::{
    config::plan::{Source, SystemPlan},
    system::sql::{DumpLimits, Dumped, SqlSystem, Values},
    tree::Tree,
    verdict::Failure,
};

/// Dumps the query of a route; the file's text as well.
pub async fn dump(site: &Site, route: &str, values: &[(&str, &str)]) -> Result<(Dumped, String), Failure> {
    let limits = DumpLimits { rows: 1_000_000, bytes: 1 << 30 };
    dump_within(site, route, values, limits).await
}

async fn dump_within(
    site: &Site,
    route: &str,
    values: &[(&str, &str)],
    limits: DumpLimits,
) -> Result<(Dumped, String), Failure> {
    let dumped = dump_only(site, route, values, limits).await;
    let path = site.folder.0.join("dump.jsonl");
    match dumped {
        Ok(dumped) => Ok((dumped, std::fs::read_to_string(path).unwrap())),
        Err(failure) => {
            assert!(!path.exists(), "a part is never there under the whole's name");
            Err(failure)
        }
    }
}

async fn dump_only(
    site: &Site,
    route: &str,
    values: &[(&str, &str)],
    limits: DumpLimits,
) -> Result<Dumped, Failure> {
    let project = site.project();
    let config = project.config.unwrap_or_else(|| panic!("{:?}", project.diagnostics));
    let route = config.collect.iter().find(|found| found.plan.name == route).unwrap();
    let SystemPlan::Sql(plan) = &route.instance.adapter.system else { panic!("no database") };
    let Source::Query(query) = &route.plan.source else { panic!("no query") };
    let system = SqlSystem::open(route.instance.clone(), plan)?;
    let values: Values =
        values.iter().map(|(name, value)| ((*name).to_owned(), Tree::text(*value))).collect();
    system.dump(&query.statement, &values, &site.folder.0.join("dump.jsonl"), limits).await
}

/// The most memory this process has had so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn view(database: &Database, statement: &str) -> Site {
    let adapter = format!("{HEAD}{}", READ.replace("cursor = {", "#"));
    let site = database.site(&adapter, &[("changes.sql", statement)]).await;
    site.settings(&site.vhost.address(), &database.settings("reader"));
    site
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_dumped_in_flat_memory() {
    let database = Database::new().await;
    let site =
        view(&database, "SELECT n AS id, repeat('x', 1800) AS filling FROM generate_series(1, 100000) n")
            .await;
    // The kernel forgets the peak of before; other tests run beside this one, but none needs so much.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let dumped =
        dump_only(&site, "changes", &[], DumpLimits { rows: 100_000, bytes: 1 << 30 }).await.unwrap();
    let grown = peak().saturating_sub(before);
    assert!(grown < 96 << 10, "{grown} KiB for {} bytes", dumped.size);
    assert_eq!(dumped.rows, 100_000);
    assert!(dumped.size > 170 << 20);
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        &std::fs::read(site.folder.0.join("dump.jsonl")).unwrap(),
    );
    assert_eq!(digest.as_ref(), dumped.digest);
    let names: Vec<&str> = dumped.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "filling"]);
}

#[tokio::test]
async fn an_empty_view_is_dumped_with_its_columns_and_one_beyond_the_limit_is_refused() {
    let database = Database::new().await;
    let site = view(&database, "SELECT n AS id FROM generate_series(1, 0) n").await;
    let (dumped, text) = dump(&site, "changes", &[]).await.unwrap();
    assert_eq!((dumped.rows, text.as_str(), dumped.columns.len()), (0, "", 1));
    let site = view(&database, "SELECT n AS id FROM generate_series(1, 2000) n").await;
    let failure =
        dump_within(&site, "changes", &[], DumpLimits { rows: 1_000, bytes: 1 << 30 }).await.unwrap_err();
    assert_eq!(failure.code.as_str(), "PH2010");
}

#[tokio::test]
async fn a_very_wide_row_passes_and_one_beyond_its_limit_is_named() {
    let database = Database::new().await;
    let columns: Vec<String> = (0..1_600).map(|number| format!("{number} AS c{number}")).collect();
    let site = view(&database, &format!("SELECT {}", columns.join(", "))).await;
    let (dumped, text) = dump(&site, "changes", &[]).await.unwrap();
    assert_eq!((dumped.rows, dumped.columns.len()), (1, 1_600));
    assert!(text.contains("\"c1599\":1599"));
    let site = view(&database, "SELECT 1 AS id, repeat('x', 2000000) AS filling").await;
    let failure = dump(&site, "changes", &[]).await.unwrap_err();
    assert!(failure.what.contains("row 1 of `changes.sql` has 2000001 bytes"), "{}", failure.what);
}

#[tokio::test]
async fn two_columns_of_one_name_are_refused_by_name() {
    let database = Database::new().await;
    let site = view(&database, "SELECT 1 AS id, 2 AS id").await;
    let failure = dump(&site, "changes", &[]).await.unwrap_err();
    assert!(failure.what.contains("two columns `id`"), "{}", failure.what);
}
