//! A council whose case system writes files into a folder, for the tests and the benchmarks of files: an adapter, a layout and
//! mappings of its own, so that neither hangs on those that ship.

use crate::support::{Broker, PATIENCE, Site, until_within};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "urn:packhorse:test.child.v1", "title": "A child", "description": "For tests.",
  "x-event-type": "test.child.v1", "x-subject": "child",
  "type": "object", "additionalProperties": false, "required": ["child", "change"],
  "properties": {
    "child": { "type": "string", "minLength": 1, "maxLength": 20 },
    "name": { "type": "string", "maxLength": 50 },
    "born": { "type": "string", "format": "date" },
    "change": { "type": "string", "enum": ["created", "changed", "removed"] }
  }
}"#;

const ADAPTER: &str = r#"version = 1
title = "A case system"
about = "Writes a list of children every night."
[settings.folder]
about = "Where it writes"
[folder]
path = "{{ settings.folder }}"
[collect.children]
about = "Children, from a nightly extract."
format = "csv"
layout = "test-children"
pickup = { pattern = "children*.csv", every = "200ms", complete = "100ms" }
compare = { key = ["CHILD"] }
events = [{ mapping = "test/child" }]
[collect.rows]
about = "Children, a file after the other."
format = "csv"
layout = "test-children"
pickup = { pattern = "rows*.csv", every = "200ms", complete = "100ms" }
events = [{ mapping = "test/row" }]
"#;

const LAYOUT: &str = "version = 1\nabout = \"For tests.\"\n[csv]\ncolumns = [\"CHILD\", \"NAME\", \"DOB\"]\n";

/// The adapter with nothing but the route that splits files, for a second system of the kind.
#[cfg(feature = "kill-points")]
pub fn split_only() -> String {
    let (head, routes) = ADAPTER.split_once("[collect.children]").unwrap();
    let (_, rows) = routes.split_once("[collect.rows]").unwrap();
    format!("{head}[collect.rows]{rows}")
}

fn mapping(change: &str) -> String {
    format!(
        "version = 1\nabout = \"For tests.\"\nevent = \"test.child.v1\"\nonly = \"to-event\"\n\
         document = {{ format = \"csv\", layout = \"test-children\" }}\nfields = [\n\
           {{ event = \"child\", document = \"CHILD\" }},\n\
           {{ event = \"name\", document = \"NAME\" }},\n\
           {{ event = \"born\", document = \"DOB\", date = \"%d/%m/%Y\" }},\n\
           {change},\n]\n"
    )
}

/// A council whose case system writes extracts into a folder.
pub struct Nightly {
    pub site: Site,
}

impl Nightly {
    pub async fn new() -> Nightly {
        Nightly::on(Broker::shared()).await
    }

    /// The same on a broker of the caller's.
    pub async fn on(broker: Broker) -> Nightly {
        let site =
            Site::on(broker, "[adapters.nightly]\nsettings = { folder = \"$FOLDER/extracts\" }\n").await;
        site.folder.write("adapters/nightly.toml", ADAPTER);
        site.folder.write("mappings/layouts/test-children.toml", LAYOUT);
        site.folder.write("mappings/events/test.child.v1.schema.json", SCHEMA);
        site.folder.write("mappings/test/child.toml", mapping("{ event = \"change\", cause = \"change\" }"));
        site.folder
            .write("mappings/test/row.toml", mapping("{ event = \"change\", constant = \"created\" }"));
        std::fs::create_dir_all(site.folder.0.join("extracts")).unwrap();
        Nightly { site }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.site.folder.0.join("extracts").join(name)
    }

    /// The system writes a file, as careful ones do: under another name first.
    pub fn writes(&self, name: &str, text: impl AsRef<[u8]>) {
        let part = self.path(&format!("{name}.tmp"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.path(name)).unwrap();
    }

    /// Waits until a file has come to this end.
    pub async fn file(&self, name: &str, state: &str) -> Value {
        self.file_within(name, state, PATIENCE).await
    }

    /// The same, for large files.
    pub async fn file_within(&self, name: &str, state: &str, patience: Duration) -> Value {
        until_within(patience, &format!("{name} is {state}"), async || {
            let out = self.site.good(&["files", "list", "--json"]).await;
            let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.into_iter().find(|file| file["name"] == name && file["state"] == state)
        })
        .await
    }

    /// The number of the extract that waits.
    pub async fn held(&self) -> String {
        let out = self.site.good(&["extracts", "list", "--json"]).await;
        let line: Value =
            serde_json::from_str(out.lines().next().unwrap_or_else(|| panic!("none waits"))).unwrap();
        line["number"].to_string()
    }
}
