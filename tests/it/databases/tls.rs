//! PostgreSQL over TLS: only a server whose certificate is of an authority that we trust, and of the name that we call it by, is
//! told our password.

use super::{Database, HEAD, READ};
use crate::support::{Site, crypto, until};

/// A server whose certificate is for this name, and its authority's certificate.
async fn server(name: &str) -> (Database, String) {
    crypto();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    let database = Database::configured(|folder| {
        let certificate = folder.write("server.pem", own.pem());
        let key = folder.write("server.key", key.serialize_pem());
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        // PostgreSQL does not run as root, and reads only a key that is its own.
        if std::fs::metadata(&key).unwrap().uid() == 0 {
            let given = std::process::Command::new("chown").arg("postgres").arg(&key).status().unwrap();
            assert!(given.success());
        }
        format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display())
    })
    .await;
    database.table().await;
    database.sql("INSERT INTO record VALUES (1, 'a', 1, '2026-11-24 09:00:00+00')").await;
    (database, authority.pem())
}

/// A project that reads from it over TLS and trusts this authority besides the machine's own.
async fn site(database: &Database, authority: &str) -> Site {
    let head = HEAD.replace(
        "[sql]",
        "[settings.ca]\nabout = \"The authority\"\n[sql]\ntls = { ca = \"{{ settings.ca }}\" }",
    );
    let site = database.site(&format!("{head}{READ}"), &[("changes.sql", super::CHANGES)]).await;
    site.folder.write("trusted/authority.pem", authority);
    // From the folder of packhorse.toml on.
    let settings =
        database.settings("reader").replace("settings = {", "settings = { ca = \"trusted/authority.pem\",");
    site.settings(&site.vhost.address(), &settings);
    site
}

async fn refused(site: &Site) {
    let running = site.run().await;
    let log = until("the refusal is logged", async || {
        let log = std::fs::read_to_string(site.folder.0.join("log")).unwrap_or_default();
        log.contains("nothing could be looked up").then_some(log)
    })
    .await;
    assert!(log.contains("PH2008") && log.contains("certificate"), "{log}");
    assert!(site.vhost.peek("platform").await.is_empty());
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_database_is_spoken_to_over_tls_only_if_its_certificate_is_trusted_and_of_its_name() {
    let (database, authority) = server("127.0.0.1").await;
    let trusting = site(&database, &authority).await;
    let bridge = trusting.start().await;
    trusting.vhost.until("platform", 1).await;
    let encrypted = database
        .texts("SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name LIKE 'packhorse%'")
        .await;
    assert!(!encrypted.is_empty() && encrypted.iter().all(|ssl| ssl == "t"), "{encrypted:?}");
    assert!(bridge.stop().await);
    // The same name, and an authority that nobody here knows.
    let (other, stranger) = server("elsewhere.example").await;
    refused(&site(&database, &stranger).await).await;
    // A good authority, and another machine's certificate.
    refused(&site(&other, &stranger).await).await;
}
