//! The files as text: in the spelling of those that are there already, with what a person should look at in comments.

use super::{Files, guess, sample::Sample, table::Table};
use crate::{
    format::Format,
    mapping::raw::{Check, Money, RowKeys},
};
use std::fmt::Write as _;

/// A text in TOML.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007F")
}

/// A text of several lines in TOML, as it is where that is possible.
fn block(text: &str) -> String {
    let lines = text.replace("\r\n", "\n");
    let plain = !lines.contains("'''")
        && !lines.ends_with('\'')
        && !lines.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    match plain {
        true => format!("'''\n{lines}'''"),
        false => quoted(text),
    }
}

fn row(keys: &RowKeys, depth: usize, out: &mut String) {
    let mut parts: Vec<String> = Vec::new();
    let mut text = |key: &str, value: &Option<String>| {
        parts.extend(value.as_ref().map(|value| format!("{key} = {}", quoted(value))));
    };
    text("event", &keys.event);
    text("document", &keys.document);
    text("constant", &keys.constant);
    text("template", &keys.template);
    text("codes", &keys.codes);
    text("date", &keys.date);
    if let Some(money) = keys.money {
        let word = match money {
            Money::Pence => "pence",
            Money::Pounds => "pounds",
        };
        parts.push(format!("money = {}", quoted(word)));
    }
    if let Some(time) = &keys.time {
        let zone = time.zone.as_ref().map(|zone| format!(", zone = {}", quoted(zone))).unwrap_or_default();
        parts.push(format!("time = {{ pattern = {}{zone} }}", quoted(&time.pattern)));
    }
    if let Some(words) = &keys.boolean {
        parts.push(format!("boolean = {{ yes = {}, no = {} }}", quoted(&words.yes), quoted(&words.no)));
    }
    if let Some((_, word)) = CHECKS.iter().find(|(check, _)| keys.check == Some(*check)) {
        parts.push(format!("check = {}", quoted(word)));
    }
    if let Some(rules) = &keys.text {
        let join = rules.join.as_ref().map(|join| format!("join = {}", quoted(join)));
        let trim = rules.trim.then(|| "trim = true".to_owned());
        let inside: Vec<String> = trim.into_iter().chain(join).collect();
        parts.push(format!("text = {{ {} }}", inside.join(", ")));
    }
    if let Some(lossy) = &keys.lossy {
        parts.push(format!("lossy = {}", quoted(lossy)));
    }
    if let Some(guess) = &keys.guess {
        parts.push(format!("guess = {}", quoted(guess)));
    }
    let indent = "  ".repeat(depth);
    if keys.fields.is_empty() {
        let _ = writeln!(out, "{indent}{{ {} }},", parts.join(", "));
        return;
    }
    let _ = writeln!(out, "{indent}{{ {}, fields = [", parts.join(", "));
    keys.fields.iter().for_each(|inside| row(inside, depth + 1, out));
    let _ = writeln!(out, "{indent}] }},");
}

/// The identifiers that are guessed, as a row writes them.
const CHECKS: [(Check, &str); 4] = [
    (Check::NhsNumber, "nhs-number"),
    (Check::Uprn, "uprn"),
    (Check::Nino, "nino"),
    (Check::Postcode, "postcode"),
];

/// The mapping.
pub fn mapping(files: &Files<'_>, sample: &Sample, table: &guess::Table) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# Guessed by `packhorse new` from {}. Rows with `guess` are waiting for a person: compare each with the",
        files.sample
    );
    let _ = writeln!(
        text,
        "# system's description, mend it, and take `guess` out. `packhorse check` says which are left."
    );
    let _ = writeln!(text, "version = 1");
    let _ = writeln!(
        text,
        "about = {}",
        quoted(&format!(
            "Guessed from {}: say here what the document is and where the system's makers describe it.",
            files.sample
        ))
    );
    let _ = writeln!(text, "event = {}", quoted(files.event));
    let _ = writeln!(text, "only = \"to-event\"");
    let mut document = vec![format!("format = {}", quoted(word(sample)))];
    document.extend(sample.root.as_ref().map(|root| format!("root = {}", quoted(root))));
    if !sample.namespaces.is_empty() {
        let spaces: Vec<String> = sample
            .namespaces
            .iter()
            .map(|(prefix, uri)| {
                format!("{} = {}", if prefix.is_empty() { "\"\"" } else { prefix }, quoted(uri))
            })
            .collect();
        document.push(format!("namespaces = {{ {} }}", spaces.join(", ")));
    }
    document.extend(sample.layout.as_ref().map(|_| format!("layout = {}", quoted(files.name))));
    let _ = writeln!(text, "document = {{ {} }}", document.join(", "));
    let _ = writeln!(text, "fields = [");
    table.rows.iter().for_each(|keys| row(keys, 1, &mut text));
    let _ = writeln!(text, "]");
    if !table.ignore.is_empty() {
        let _ = writeln!(text, "# The sample has these as well, and nothing of the event looks like them.");
        let _ = writeln!(text, "ignore = [");
        table.ignore.iter().for_each(|path| {
            let _ = writeln!(text, "  {},", quoted(path));
        });
        let _ = writeln!(text, "]");
    }
    text
}

/// The format as files write it.
fn word(sample: &Sample) -> &'static str {
    match sample.format {
        Format::Json => "json",
        Format::Xml => "xml",
        Format::Soap11 => "soap-1.1",
        Format::Soap12 => "soap-1.2",
        Format::Form => "form",
        Format::Csv => "csv",
        Format::Fixed => "fixed",
    }
}

/// The cases: the first record and what the mapping makes of it.
pub fn cases(files: &Files<'_>, document: &str, event: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "# Cases of {}.toml. The first is {} and what the guessed mapping makes of it: read the event with care",
        files.document, files.sample
    );
    let _ = writeln!(
        text,
        "# before you believe it, and replace personal data. `packhorse test {}/{}` runs them.",
        files.name, files.document
    );
    let _ = writeln!(text, "version = 1\n\n[[case]]");
    let _ = writeln!(
        text,
        "name = {}",
        quoted(&format!("The first record of {}, as it was guessed", files.sample))
    );
    let _ = writeln!(text, "document = {}", block(document));
    let _ = writeln!(text, "event = {}", block(event));
    text
}

/// The layout.
pub fn layout(files: &Files<'_>, sample: &Sample) -> Option<String> {
    let file = sample.layout.as_ref()?;
    let mut text = String::new();
    let _ =
        writeln!(text, "# Guessed by `packhorse new` from {}. Keys: docs/reference/layout.md.", files.sample);
    let _ = writeln!(text, "version = 1");
    let _ = writeln!(
        text,
        "about = {}",
        quoted(&format!(
            "Guessed from {}: say here what the file is and where its makers describe it.",
            files.sample
        ))
    );
    if let Some(encoding) = &file.encoding {
        let _ = writeln!(text, "encoding = {}", quoted(encoding));
    }
    if let Some(csv) = &file.csv {
        let _ = writeln!(text, "\n[csv]");
        if let Some(delimiter) = &csv.delimiter {
            let _ = writeln!(text, "delimiter = {}", quoted(delimiter));
        }
        if let Some(rows) = csv.header_rows {
            let _ = writeln!(text, "header_rows = {rows}");
        }
        if !csv.columns.is_empty() {
            let names: Vec<String> = csv.columns.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(text, "columns = [{}]", names.join(", "));
        }
    }
    if let Some(xml) = &file.xml {
        let _ = writeln!(text, "\n[xml]");
        if !xml.namespaces.is_empty() {
            let spaces: Vec<String> = xml
                .namespaces
                .iter()
                .map(|(prefix, uri)| {
                    format!("{} = {}", if prefix.is_empty() { "\"\"" } else { prefix }, quoted(uri))
                })
                .collect();
            let _ = writeln!(text, "namespaces = {{ {} }}", spaces.join(", "));
        }
        let _ = writeln!(text, "record = {}", quoted(&xml.record));
        if !xml.keep.is_empty() {
            let kept: Vec<String> = xml.keep.iter().map(|path| quoted(path)).collect();
            let _ = writeln!(text, "keep = [{}]", kept.join(", "));
        }
    }
    if file.lines.is_some() {
        let _ = writeln!(text, "\n[lines]");
    }
    Some(text)
}

/// A code list.
pub fn codes(files: &Files<'_>, pairs: &[(String, String)]) -> String {
    let mut text = format!(
        "# Guessed by `packhorse new` from {}: the event's word for each code that occurs there.\nplatform,system\n",
        files.sample
    );
    let cell = |text: &str| match text.contains([',', '"', '\n', '#']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    };
    for (platform, system) in pairs {
        let _ = writeln!(text, "{},{}", cell(platform), cell(system));
    }
    text
}

/// The adapter: of a table by a query, of files of records by a folder, of single documents by a call of the system.
pub fn adapter(files: &Files<'_>, sample: &Sample) -> String {
    let head = format!(
        r#"# Written by `packhorse new` from {}. Keys: docs/reference/adapter.md.
version = 1
title = {}
about = "Guessed from {}: say here what the system is, where its interface is described, and what of it is uncertain."
"#,
        files.sample,
        quoted(files.name),
        files.sample
    );
    let rest = match (&sample.table, sample.compiled.is_some() || sample.format == Format::Csv) {
        (Some(table), _) => database(files, table),
        (None, true) => folder(files, sample),
        (None, false) => receiver(files, sample),
    };
    head + &rest
}

/// Files are picked up from a folder.
fn folder(files: &Files<'_>, sample: &Sample) -> String {
    let layout =
        sample.layout.as_ref().map(|_| format!("layout = {}\n", quoted(files.name))).unwrap_or_default();
    let Files { name, sample: given, document, .. } = files;
    let ending = given.rsplit_once('.').map_or("*", |(_, ending)| ending);
    format!(
        r#"
[settings.folder]
about = "The folder into which the system writes its files"
example = "/srv/{name}/out"

# Files on a server instead: take [folder] out and write
#   [sftp]
#   address = "{{{{ settings.address }}}}"
#   username = "{{{{ settings.username }}}}"
#   key = "key"
#   host_keys = "{{{{ settings.host_keys }}}}"
# with a setting for each; `key` is a secret one.
[folder]
path = "{{{{ settings.folder }}}}"

[collect.records]
about = "Each record of a file becomes an event."
format = {format}
{layout}events = [{{ mapping = "{name}/{document}" }}]

[collect.records.pickup]
pattern = {pattern}
# A file is taken when its size and time have not changed for so long. If the system writes a marker beside each file that
# is done, say so instead: done = "{{name}}.done"
complete = "30s"

# If each file is a whole extract, only what is new, changed or gone since the last one is news. Name the columns that say
# which record it is, and say in `events` what becomes of each change:
#   [collect.records.compare]
#   key = ["..."]
"#,
        format = quoted(word(sample)),
        pattern = quoted(&format!("*.{ending}")),
    )
}

/// A file holds one document, and files are split into records: single documents come by a call.
fn receiver(files: &Files<'_>, sample: &Sample) -> String {
    let Files { name, document, .. } = files;
    format!(
        r#"
[settings.base_url]
about = "The system's server"
example = "https://{name}.example.gov.uk"
[settings.username]
about = "The user as whom the system calls us"
example = "{name}"
[settings.password]
about = "The password with which it does"
secret = true

[http]
base_url = "{{{{ settings.base_url }}}}"

# The sample is one document, so this is written for a system that calls us with each. Files of many records are picked up
# from a folder instead, and split by a layout: see docs/reference/layout.md.
[collect.records]
about = "Each document that the system sends becomes an event."
format = {format}
receive = {{ login = {{ basic = {{ username = "{{{{ settings.username }}}}", password = "password" }} }} }}
events = [{{ mapping = "{name}/{document}" }}]
"#,
        format = quoted(word(sample)),
    )
}

/// A table is asked.
fn database(files: &Files<'_>, table: &Table) -> String {
    let Files { name, document, .. } = files;
    let reached = match table.foreign {
        true => format!(
            r#"
[settings.connection]
about = "The ODBC connection string without the password"
example = "Driver={{ODBC Driver 18 for SQL Server}};Server=db.example.gov.uk;Database={name};UID=packhorse"
[settings.password]
about = "The user's password"
secret = true

# The table is written as PostgreSQL writes none: it is reached by ODBC.
[sql]
database = "odbc"
connection = "{{{{ settings.connection }}}}"
password = "password"
"#
        ),
        false => format!(
            r#"
[settings.address]
about = "Host and port of the database"
example = "db.example.gov.uk:5432"
[settings.database]
about = "The database's name"
example = "{name}"
[settings.username]
about = "A user who may read the table and nothing else"
example = "packhorse"
[settings.password]
about = "The user's password"
secret = true

[sql]
database = "postgres"
address = "{{{{ settings.address }}}}"
name = "{{{{ settings.database }}}}"
username = "{{{{ settings.username }}}}"
password = "password"
"#
        ),
    };
    let look = match (&table.changed, table.key.is_empty()) {
        (Some(column), _) => format!(
            r#"query = {{ statement = "rows.sql", every = "5m", cursor = {{ column = "{column}", first = "1900-01-01T00:00:00", kind = "time", overlap = "10m" }} }}
# The column is a guess: it must rise whenever a row changes.
events = [{{ mapping = "{name}/{document}" }}]
"#
        ),
        (None, false) => format!(
            r#"# Nothing says when a row changed: the whole table is read and compared with the last time. The first time says nothing.
query = {{ statement = "rows.sql", every = "1h" }}
compare = {{ key = [{}] }}
events = [
  {{ change = ["created", "changed"], mapping = "{name}/{document}" }},
  {{ change = ["removed"], ignore = "say here why a row that is gone is no news, or give it a mapping" }},
]
"#,
            table.key.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
        ),
        (None, true) => format!(
            r#"# Nothing says when a row changed, and no key is known: all rows are read each time, and those that are known passed over.
query = {{ statement = "rows.sql", every = "1h" }}
events = [{{ mapping = "{name}/{document}" }}]
"#
        ),
    };
    format!(
        r#"{reached}
[collect.records]
about = "Rows of the table become events."
format = "json"
{look}"#
    )
}
