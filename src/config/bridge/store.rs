//! `[store]`: a file, or a schema on a PostgreSQL.

use super::Builder;
use crate::{
    code::Code,
    config::{Store, StoreServer},
    template::percent_decode,
};
use std::{net::IpAddr, sync::Arc};

/// What stands in an address of a PostgreSQL.
struct Url {
    hosts: Vec<(String, u16)>,
    username: Option<String>,
    database: String,
}

impl Builder<'_> {
    pub(super) fn store(&mut self) -> Store {
        let keys = &self.file.store;
        let server = keys.url.as_deref().and_then(|url| self.server(url));
        if keys.url.is_none() {
            let only = [
                ("password", keys.password.is_some()),
                ("schema", keys.schema.is_some()),
                ("tls", keys.tls.is_some()),
            ];
            for (key, _) in only.into_iter().filter(|(_, said)| *said) {
                let what = format!("`{key}` is for a store on a server, and there is no `url`");
                self.error(
                    Code::MissingKey,
                    &["store", key],
                    what,
                    "url = \"postgres://user@host/database\"",
                );
            }
        }
        Store {
            path: self.with.folder.join(keys.path.as_deref().unwrap_or("var/packhorse.db")),
            server: server.map(Arc::new),
            spool_limit: self.size(&keys.spool_limit, 1 << 30, &["store", "spool_limit"]),
            keep: self.duration(&keys.keep, "90d", &["store", "keep"]),
        }
    }

    fn server(&mut self, url: &str) -> Option<StoreServer> {
        let keys = &self.file.store;
        let url = match parse(url) {
            Ok(url) => url,
            Err((code, what)) => {
                self.error(
                    code,
                    &["store", "url"],
                    what,
                    "for example `postgres://packhorse@db.example.gov.uk/packhorse`",
                );
                return None;
            }
        };
        let password = keys.password.as_ref().and_then(|text| self.secret(text, &["store", "password"]));
        let tls = keys.tls.as_ref().map(|tls| self.tls(tls, &["store", "tls"]));
        if keys.tls.as_ref().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            let what = "to show a certificate takes `certificate` and `key`";
            self.error(Code::MissingKey, &["store", "tls"], what, "");
        }
        let local = url.hosts.iter().all(|(host, _)| is_local(host));
        let tls = tls.or_else(|| (!local && !keys.allow_unencrypted_login).then(Default::default));
        let schema = keys
            .schema
            .clone()
            .unwrap_or_else(|| format!("packhorse_{}", self.file.council.replace('-', "_")));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > 63 || schema.starts_with("pg_") || !schema.chars().all(plain) {
            let what = "a schema has small letters, digits and underscores only, at most 63, and does not begin with `pg_`";
            self.error(Code::WrongType, &["store", "schema"], what, "");
        }
        if cfg!(not(feature = "postgres")) {
            self.error(
                Code::MissingKey,
                &["store", "url"],
                "this Packhorse was built without PostgreSQL",
                "",
            );
        }
        Some(StoreServer {
            hosts: url.hosts,
            database: url.database,
            schema,
            username: url.username,
            password,
            tls,
        })
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads `postgres://[user@]host[:port][,host[:port]]/database`.
fn parse(text: &str) -> Result<Url, (Code, String)> {
    let bad = |what: &str| (Code::BadAddress, what.to_owned());
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or_else(|| bad("a store on a server begins with `postgres://`"))?;
    if rest.contains(['?', '#']) {
        return Err(bad("the address takes no parameters; what there is stands in keys of its own"));
    }
    let decoded = |text: &str| {
        percent_decode(text).ok_or_else(|| {
            bad("`%` is not followed by two hexadecimal digits, or what it makes is not UTF-8")
        })
    };
    let (authority, database) =
        rest.rsplit_once('/').ok_or_else(|| bad("the address has no database: `/packhorse`"))?;
    let (username, hosts) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((login, _)) if login.contains(':') => {
            let what = "a password does not stand in the address; use `password`, and if this was a real one, change it";
            return Err((Code::SecretInClear, what.to_owned()));
        }
        Some((login, hosts)) => (Some(decoded(login)?), hosts),
    };
    let host = |text: &str| {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, port))) => (host, port.strip_prefix(':')),
            Some(None) => return Err(bad("the bracket of the IPv6 address is not closed")),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(5432), str::parse);
        let port = port.map_err(|_| bad("the port is not a number from 1 to 65535"))?;
        match decoded(host)? {
            host if host.is_empty() => Err(bad("the address has no host")),
            host => Ok((host, port)),
        }
    };
    let hosts = hosts.split(',').map(host).collect::<Result<Vec<_>, _>>()?;
    match decoded(database)? {
        database if database.is_empty() => Err(bad("the address has no database: `/packhorse`")),
        database => Ok(Url { hosts, username, database }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_user_hosts_and_database_and_never_a_password() {
        let url =
            parse("postgres://pack%40horse@db1:6432,[::1],db3/store").map_err(|(_, what)| what).unwrap();
        assert_eq!(url.username.as_deref(), Some("pack@horse"));
        assert_eq!(url.hosts, [("db1".into(), 6432), ("::1".into(), 5432), ("db3".into(), 5432)]);
        assert_eq!(url.database, "store");
        let socket = parse("postgresql://%2Frun%2Fpostgresql/store").map_err(|(_, what)| what).unwrap();
        assert_eq!((socket.hosts, socket.username), (vec![("/run/postgresql".into(), 5432)], None));
        for (text, code) in [
            ("postgres://user:secret@db/store", Code::SecretInClear),
            ("mysql://db/store", Code::BadAddress),
            ("postgres://db", Code::BadAddress),
            ("postgres://db/", Code::BadAddress),
            ("postgres:///store", Code::BadAddress),
            ("postgres://db:no/store", Code::BadAddress),
            ("postgres://db/store?sslmode=disable", Code::BadAddress),
        ] {
            assert_eq!(parse(text).err().map(|(code, _)| code), Some(code), "{text}");
        }
    }
}
