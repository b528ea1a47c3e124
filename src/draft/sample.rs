//! A sample as what can be mapped: its format, the layout if it needs one, its records, and every place in them with all
//! the values that stand there. Knows no event but by the names it is asked about.

use super::{
    Refused, names,
    table::{self, Table},
};
use crate::{
    code::Code,
    event::schema::EventSchema,
    format::{
        Format, FormatError, Layout, Limits,
        layout::{
            self,
            raw::{CsvKeys, LayoutFile, LinesKeys, XmlKeys},
        },
        records::{RecordLimits, Records, kind_of_file},
        wide::{self, NotNarrowed},
        write_json_pretty,
    },
    tree::{Name, TEXT, Tree},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a sample is, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows of cells.
    Csv,
    /// XML.
    Xml,
    /// One JSON object, or one a line.
    Json,
    /// The `CREATE TABLE` of a table.
    Sql,
}

impl Kind {
    /// By the name of the file.
    pub fn of(name: &str) -> Option<Kind> {
        let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase())?;
        match ending.as_str() {
            "csv" | "tsv" | "txt" => Some(Kind::Csv),
            "xml" => Some(Kind::Xml),
            "json" | "jsonl" | "ndjson" => Some(Kind::Json),
            "sql" => Some(Kind::Sql),
            _ => None,
        }
    }
}

/// A sample, read.
#[derive(Debug)]
pub struct Sample {
    /// Its format.
    pub format: Format,
    /// The root element, as a mapping writes it (XML).
    pub root: Option<String>,
    /// The namespaces by prefix (XML).
    pub namespaces: BTreeMap<String, String>,
    /// Its layout, if it needs one.
    pub layout: Option<LayoutFile>,
    /// The same, compiled.
    pub compiled: Option<Arc<Layout>>,
    /// The table that it is, if it is one.
    pub table: Option<Table>,
    /// Its records, each a document: the text, and the tree below the root.
    pub records: Vec<(Vec<u8>, Tree)>,
    /// Everything that stands in them.
    pub top: Node,
    /// What a person should know about how it was read.
    pub notes: Vec<String>,
}

/// A place in documents.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// The step to it as a mapping writes it; empty for the top.
    pub step: String,
    /// Its name without prefix.
    pub name: String,
    /// The values that stand there, in all records.
    pub values: Vec<String>,
    /// Whether there are several in one record.
    pub several: bool,
    /// Whether a mapping can name it: a name with a quote in it cannot be written.
    pub unnameable: bool,
    /// What stands below it.
    pub inside: Vec<Node>,
}

/// How many records are looked at.
const MOST: usize = 1_000;

/// Reads a sample. The names of the event's plain fields tell a file of many records from one record with a group in it.
///
/// # Errors
/// What keeps it from being read.
pub fn read(kind: Kind, bytes: &[u8], schema: &EventSchema, example: &Tree) -> Result<Sample, Refused> {
    let fields = schema.root.leaves().into_iter().filter(|(path, _)| !path.contains("[]"));
    let wanted: Vec<Vec<String>> =
        fields.map(|(path, _)| path.split('.').map(str::to_owned).collect()).collect();
    if let Some(what) = kind_of_file(bytes) {
        return Err(not_a_sample(format!("it is {what}")));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(not_a_sample("it is empty".to_owned()));
    }
    let mut narrowed = Vec::new();
    let bytes = match wide::of_file(bytes, None).map_err(refused)? {
        None => bytes,
        Some(encoding) => match wide::narrow(bytes, &mut narrowed, encoding) {
            Ok(()) => narrowed.as_slice(),
            Err(NotNarrowed::Format(error)) => return Err(refused(error)),
            Err(NotNarrowed::Read(error) | NotNarrowed::Write(error)) => {
                return Err(not_a_sample(error.to_string()));
            }
        },
    };
    match kind {
        Kind::Csv => csv(bytes),
        Kind::Xml => xml(bytes, &wanted),
        Kind::Json => json(bytes),
        Kind::Sql => sql(bytes, schema, example),
    }
}

/// A sample that is none, and why.
pub fn not_a_sample(what: String) -> Refused {
    Refused { code: Code::NotASample, what }
}

fn sql(bytes: &[u8], schema: &EventSchema, example: &Tree) -> Result<Sample, Refused> {
    let table = table::read(&String::from_utf8_lossy(bytes), schema, example)?;
    let records = vec![(write_json_pretty(&table.row).into_bytes(), table.row.clone())];
    let notes = vec!["a table has types and no values: the row in the case is made up".to_owned()];
    let mut sample = Sample::of(Format::Json, records, None, None, notes, &Spelling::plain())?;
    sample.table = Some(table);
    Ok(sample)
}

fn refused(error: FormatError) -> Refused {
    Refused { code: error.code, what: error.to_string() }
}

fn csv(bytes: &[u8]) -> Result<Sample, Refused> {
    if bytes.contains(&0) {
        let what = "it is no text, or in UTF-16 without its byte-order mark: save it as UTF-8".to_owned();
        return Err(not_a_sample(what));
    }
    let mut notes = Vec::new();
    let bare = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let encoding = match std::str::from_utf8(bare) {
        Ok(_) => None,
        Err(_) => {
            notes.push("it is not UTF-8: read as windows-1252, which is a guess".to_owned());
            Some("windows-1252".to_owned())
        }
    };
    let text = String::from_utf8_lossy(bare);
    let rows = first_rows(&text);
    let (delimiter, cells) = parted(&rows);
    let headed = headed(&cells);
    if headed && cells.len() < 2 {
        return Err(not_a_sample("it has a header and no row".to_owned()));
    }
    let mut keys = CsvKeys::default();
    if delimiter != ',' {
        notes.push(format!("its cells are parted by {delimiter:?}"));
        keys.delimiter = Some(delimiter.to_string());
    }
    if !headed {
        let columns = cells.first().map_or(0, Vec::len);
        notes.push(
            "its first row is a record: the columns are numbered and want names in the layout".to_owned(),
        );
        keys.header_rows = Some(0);
        keys.columns = (1..=columns).map(|column| format!("column_{column}")).collect();
    }
    let plain = encoding.is_none() && delimiter == ',' && headed;
    let file = (!plain).then(|| LayoutFile { encoding, csv: Some(keys), ..no_layout() });
    let layout = file.as_ref().map(compiled).transpose()?;
    let records = split(Format::Csv, layout.clone(), bytes, &mut notes)?;
    Sample::of(Format::Csv, records, file, layout, notes, &Spelling::plain())
}

/// The first rows as text, quotes respected, for looking at them.
fn first_rows(text: &str) -> Vec<&str> {
    let (mut rows, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\n' if !quoted => {
                rows.push(text.get(start..at).unwrap_or_default().trim_end_matches('\r'));
                start = at + 1;
                if rows.len() == 50 {
                    return rows;
                }
            }
            _ => {}
        }
    }
    rows.push(text.get(start..).unwrap_or_default());
    rows.retain(|row| !row.trim().is_empty());
    rows
}

/// What parts the cells: the character that parts every row into the same number, and into the most.
fn parted<'t>(rows: &[&'t str]) -> (char, Vec<Vec<&'t str>>) {
    let cut = |row: &'t str, delimiter: char| {
        let (mut cells, mut start, mut quoted) = (Vec::new(), 0, false);
        for (at, c) in row.char_indices() {
            if c == '"' {
                quoted = !quoted;
            } else if c == delimiter && !quoted {
                cells.push(row.get(start..at).unwrap_or_default());
                start = at + delimiter.len_utf8();
            }
        }
        cells.push(row.get(start..).unwrap_or_default());
        cells
    };
    let by = |delimiter| -> Vec<Vec<&'t str>> { rows.iter().map(|row| cut(row, delimiter)).collect() };
    let even = |cells: &Vec<Vec<&str>>| {
        let width = cells.first().map_or(0, Vec::len);
        let alike = cells.iter().filter(|row| row.len() == width).count();
        // A ragged row does not make another delimiter of it.
        if alike * 10 >= cells.len() * 8 { width } else { 0 }
    };
    let best = [',', ';', '\t', '|'].into_iter().map(|delimiter| (delimiter, by(delimiter))).rev();
    best.max_by_key(|(_, cells)| even(cells)).unwrap_or((',', Vec::new()))
}

/// Whether the first row names the columns: every cell is a text of its own, and none a value.
fn headed(cells: &[Vec<&str>]) -> bool {
    let Some(first) = cells.first() else { return false };
    let plain: Vec<&str> = first.iter().map(|cell| cell.trim().trim_matches('"')).collect();
    let named =
        |cell: &&str| cell.starts_with(|c: char| c.is_alphabetic() || c == '_') && !looks_like_a_date(cell);
    let distinct = plain.iter().collect::<std::collections::BTreeSet<_>>().len() == plain.len();
    // A first row that is like the second in which of its cells are numbers is a record.
    distinct && plain.iter().all(named)
}

fn looks_like_a_date(text: &str) -> bool {
    text.chars().filter(char::is_ascii_digit).count() >= 4 && text.contains(['-', '/', '.'])
}

fn no_layout() -> LayoutFile {
    LayoutFile {
        version: 1,
        about: String::new(),
        encoding: None,
        csv: None,
        fixed: None,
        xml: None,
        lines: None,
        records: Vec::new(),
        totals: Vec::new(),
    }
}

fn compiled(file: &LayoutFile) -> Result<Arc<Layout>, Refused> {
    let (layout, problems) = layout::compile("sample", String::new(), file);
    layout.map(Arc::new).ok_or_else(|| {
        not_a_sample(problems.first().map_or_else(String::new, |problem| problem.what.clone()))
    })
}

/// The records of a file, each with its document; what is wrong with single records goes to the notes.
fn split(
    format: Format,
    layout: Option<Arc<Layout>>,
    bytes: &[u8],
    notes: &mut Vec<String>,
) -> Result<Vec<(Vec<u8>, Tree)>, Refused> {
    let mut records = Records::new(format, layout, bytes, RecordLimits::default()).map_err(refused)?;
    let (mut found, mut wrong) = (Vec::new(), None);
    while let Some(piece) = records.next().map_err(refused)? {
        let read = match &piece.wrong {
            Some(error) => Err(error.clone()),
            None => records.read(&piece, &Limits::default()),
        };
        match read {
            Ok(tree) => found.push((records.frame().wrap(&piece.bytes), tree)),
            Err(error) => {
                notes.push(format!("record {} is left out: {error}", piece.number));
                wrong = wrong.or(Some(error));
            }
        }
        if found.len() == MOST {
            notes.push(format!("only the first {MOST} records were looked at"));
            break;
        }
    }
    match (found.is_empty(), wrong) {
        (false, _) => Ok(found),
        (true, Some(error)) => Err(refused(error)),
        (true, None) => Err(not_a_sample("it has no record".to_owned())),
    }
}

fn json(bytes: &[u8]) -> Result<Sample, Refused> {
    let whole = Format::Json.decode(bytes, None, &Limits::default());
    match whole {
        Ok(tree @ Tree::Record(_)) => {
            let records = vec![(bytes.to_vec(), tree)];
            Sample::of(Format::Json, records, None, None, Vec::new(), &Spelling::plain())
        }
        Ok(Tree::List(items)) => Err(not_a_sample(format!(
            "it is one list of {} entries, and a JSON file is split into records by lines: give it one of the entries, or one a line",
            items.len()
        ))),
        Ok(other) => Err(not_a_sample(format!("it is {} and no JSON object", other.kind()))),
        Err(error) => {
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            let objects = lines.clone().filter(|line| line.trim_ascii().starts_with(b"{")).count();
            if objects < 2 || objects != lines.count() {
                return Err(refused(error));
            }
            let file = LayoutFile { lines: Some(LinesKeys {}), ..no_layout() };
            let layout = compiled(&file)?;
            let mut notes = vec!["it has one JSON object a line".to_owned()];
            let records = split(Format::Json, Some(layout.clone()), bytes, &mut notes)?;
            Sample::of(Format::Json, records, Some(file), Some(layout), notes, &Spelling::plain())
        }
    }
}

fn xml(bytes: &[u8], wanted: &[Vec<String>]) -> Result<Sample, Refused> {
    let tree = Format::Xml.decode(bytes, None, &Limits::default()).map_err(refused)?;
    let spelling = Spelling::of(bytes, &tree);
    let whole = Sample::of(Format::Xml, vec![(bytes.to_vec(), tree)], None, None, Vec::new(), &spelling)?;
    let Some(path) = repeated(&whole.top, wanted) else { return Ok(whole) };
    let root = whole.root.clone().unwrap_or_default();
    let keep = before(&whole.top, &path, &root);
    let record =
        std::iter::once(root.as_str()).chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("/");
    let mut notes = vec![format!("it holds many records, one for each `{record}`: a layout splits it")];
    let xml = XmlKeys { namespaces: spelling.declared(), accept: Vec::new(), record, keep };
    let file = LayoutFile { xml: Some(xml), ..no_layout() };
    let layout = compiled(&file)?;
    let records = split(Format::Xml, Some(layout.clone()), bytes, &mut notes)?;
    Sample::of(Format::Xml, records, Some(file), Some(layout), notes, &spelling)
}

/// The repeated element whose inside looks more like the event than what stands around it.
fn repeated(top: &Node, wanted: &[Vec<String>]) -> Option<Vec<String>> {
    fn find(node: &Node, path: &[String], found: &mut Vec<Vec<String>>) {
        for inside in &node.inside {
            let mut path = path.to_vec();
            path.push(inside.step.clone());
            if inside.several && !inside.inside.is_empty() {
                found.push(path);
            } else {
                find(inside, &path, found);
            }
        }
    }
    let mut candidates = Vec::new();
    find(top, &[], &mut candidates);
    let alike = |places: &[Vec<String>]| {
        let like =
            |field: &&Vec<String>| places.iter().any(|place| names::likeness(field, place) >= names::ENOUGH);
        wanted.iter().filter(like).count()
    };
    let around = alike(&top.leaves(&[]));
    let inside = |path: &Vec<String>| {
        let node = path.iter().try_fold(top, |node, step| node.inside.iter().find(|n| n.step == *step));
        node.map_or(0, |node| alike(&node.leaves(&[])))
    };
    let best = candidates.into_iter().map(|path| (inside(&path), path)).rev().max_by_key(|(count, _)| *count);
    let (count, path) = best.unwrap_or((0, Vec::new()));
    // Where nothing around is like the event either, a list of the same is a file of records.
    (!path.is_empty() && (count > around || (count == 0 && around == 0))).then_some(path).or_else(|| {
        // A file with a single record.
        match top.inside.as_slice() {
            [only] if !only.inside.is_empty() && !only.name.starts_with('@') => Some(vec![only.step.clone()]),
            _ => None,
        }
    })
}

/// The elements that stand before the records and belong to all of them.
fn before(top: &Node, path: &[String], root: &str) -> Vec<String> {
    let (mut found, mut node, mut prefix) = (Vec::new(), Some(top), root.to_owned());
    for step in path {
        let Some(here) = node else { break };
        let earlier = here.inside.iter().take_while(|inside| inside.step != *step);
        let kept = earlier.filter(|inside| !inside.several && !inside.name.starts_with('@'));
        found.extend(kept.map(|inside| format!("{prefix}/{}", inside.step)));
        prefix = format!("{prefix}/{step}");
        node = here.inside.iter().find(|inside| inside.step == *step);
    }
    found
}

/// How names in namespaces are written.
#[derive(Debug)]
struct Spelling {
    /// Prefix and namespace; the empty prefix only where every element is in some namespace.
    prefixes: Vec<(String, String)>,
    /// Whether names with odd characters stand in quotes: in XML there are none.
    quoted: bool,
}

impl Spelling {
    fn plain() -> Spelling {
        Spelling { prefixes: Vec::new(), quoted: true }
    }

    /// The prefixes that the document itself uses.
    fn of(bytes: &[u8], tree: &Tree) -> Spelling {
        let (mut spaces, mut bare) = (Vec::new(), false);
        collect(tree, &mut spaces, &mut bare);
        let text = String::from_utf8_lossy(bytes);
        let mut prefixes: Vec<(String, String)> = Vec::new();
        for space in spaces {
            let own = declared_prefix(&text, &space).filter(|prefix| {
                let taken = prefixes.iter().any(|(other, _)| other == prefix);
                !(taken || prefix.is_empty() && bare)
            });
            let made =
                || (1..).map(|number| format!("n{number}")).find(|p| !prefixes.iter().any(|(o, _)| o == p));
            let Some(prefix) = own.or_else(made) else { continue };
            prefixes.push((prefix, space));
        }
        Spelling { prefixes, quoted: false }
    }

    fn declared(&self) -> BTreeMap<String, String> {
        self.prefixes.iter().cloned().collect()
    }

    fn step(&self, name: &Name) -> String {
        let (at, local) = match name.local.strip_prefix('@') {
            Some(local) if !self.quoted => ("@", local),
            _ => ("", name.local.as_str()),
        };
        let prefix = name.space.as_ref().and_then(|space| {
            self.prefixes.iter().find(|(_, uri)| **uri == **space).map(|(prefix, _)| prefix.as_str())
        });
        match prefix {
            Some(prefix) if !prefix.is_empty() => format!("{at}{prefix}:{local}"),
            _ if self.quoted
                && (local.is_empty()
                    || local.contains(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))) =>
            {
                format!("'{local}'")
            }
            _ => format!("{at}{local}"),
        }
    }
}

fn collect(tree: &Tree, spaces: &mut Vec<String>, bare: &mut bool) {
    match tree {
        Tree::Record(record) => {
            for (name, inside) in record.entries() {
                match &name.space {
                    Some(space) if !spaces.iter().any(|known| **known == **space) => {
                        spaces.push(space.to_string())
                    }
                    Some(_) => {}
                    None => *bare |= !name.is_attribute() && name.local != TEXT,
                }
                collect(inside, spaces, bare);
            }
        }
        Tree::List(items) => items.iter().for_each(|item| collect(item, spaces, bare)),
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {}
    }
}

/// The prefix that a document declares for a namespace.
fn declared_prefix(text: &str, space: &str) -> Option<String> {
    ['"', '\''].into_iter().find_map(|quote| {
        let (before, _) = text.split_once(&format!("={quote}{space}{quote}"))?;
        let name = before.rsplit(|c: char| c.is_whitespace()).next()?;
        match name.strip_prefix("xmlns")? {
            "" => Some(String::new()),
            rest => rest.strip_prefix(':').map(str::to_owned),
        }
    })
}

impl Sample {
    fn of(
        format: Format,
        records: Vec<(Vec<u8>, Tree)>,
        layout: Option<LayoutFile>,
        compiled: Option<Arc<Layout>>,
        notes: Vec<String>,
        spelling: &Spelling,
    ) -> Result<Sample, Refused> {
        let mut sample = Sample {
            format,
            root: None,
            namespaces: spelling.declared(),
            layout,
            compiled,
            table: None,
            records,
            top: Node::default(),
            notes,
        };
        let mut top = Node::default();
        for (_, tree) in &sample.records {
            let inside = match (format.is_xml(), tree.as_record().and_then(|record| record.entries().first()))
            {
                (true, Some((name, inside))) => {
                    sample.root = Some(spelling.step(name));
                    inside
                }
                _ => tree,
            };
            top.learn(inside, spelling);
        }
        if top.inside.is_empty() {
            return Err(not_a_sample("there is nothing in it that could be mapped".to_owned()));
        }
        sample.top = top;
        Ok(sample)
    }
}

impl Node {
    fn learn(&mut self, tree: &Tree, spelling: &Spelling) {
        match tree {
            Tree::Null => {}
            Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => self.values.extend(tree.to_plain_text()),
            Tree::List(items) => {
                self.several = true;
                items.iter().for_each(|item| self.learn(item, spelling));
            }
            Tree::Record(record) => {
                self.values.extend(tree.to_plain_text());
                for (at, (name, inside)) in record.entries().iter().enumerate() {
                    if name.local == TEXT {
                        continue;
                    }
                    let step = spelling.step(name);
                    let twice = record.entries().iter().take(at).any(|(earlier, _)| earlier == name);
                    let node = match self.inside.iter().position(|node| node.step == step) {
                        Some(at) => self.inside.get_mut(at),
                        None => {
                            let unnameable = name.local.contains(['\'', '\n']);
                            let name = name.local.to_string();
                            self.inside.push(Node { step, name, unnameable, ..Node::default() });
                            self.inside.last_mut()
                        }
                    };
                    if let Some(node) = node {
                        node.several |= twice;
                        node.learn(inside, spelling);
                    }
                }
            }
        }
    }

    /// The names of all plain places below here that occur once.
    pub fn leaves(&self, prefix: &[String]) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for node in self.inside.iter().filter(|node| !node.several) {
            let mut path = prefix.to_vec();
            path.push(node.name.clone());
            found.extend(node.leaves(&path));
            if node.inside.is_empty() || !node.values.is_empty() {
                found.push(path);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, bytes: &[u8]) -> Result<Sample, Refused> {
        let schema = EventSchema::compile(serde_json::json!({
            "$id": "x", "x-event-type": "x.v1", "type": "object",
            "properties": { "ref": { "type": "string" } }
        }));
        super::read(kind, bytes, &schema.unwrap(), &Tree::Null)
    }

    fn csv_of(text: &str) -> Sample {
        read(Kind::Csv, text.as_bytes()).unwrap()
    }

    #[test]
    fn a_plain_file_needs_no_layout_and_another_dialect_gets_one() {
        assert!(csv_of("REF,AMOUNT\nA1,12.50\n").layout.is_none());
        let other = csv_of("REF;AMOUNT\nA1;12,50\n").layout.unwrap().csv.unwrap();
        assert_eq!(other.delimiter.as_deref(), Some(";"));
        let bare = csv_of("A1,24/11/2026,12.50\nA2,25/11/2026,13.00\n");
        assert_eq!(bare.layout.unwrap().csv.unwrap().columns.len(), 3);
        assert_eq!(bare.records.len(), 2);
        assert_eq!(csv_of("\u{feff}REF,NAME\nA1,\"Jones, T\"\n").records.len(), 1);
    }

    #[test]
    fn what_is_no_sample_is_refused_with_its_reason() {
        for (kind, bytes, reason) in [
            (Kind::Csv, b"PK\x03\x04rest".as_slice(), "zip"),
            (Kind::Csv, b" \n".as_slice(), "empty"),
            (Kind::Csv, b"REF,AMOUNT\n".as_slice(), "no row"),
            (Kind::Csv, b"R\0E\0F\0".as_slice(), "UTF-16"),
            (Kind::Json, b"[{\"a\": 1}, {\"a\": 2}]".as_slice(), "list of 2"),
            (Kind::Json, b"17".as_slice(), "no JSON object"),
        ] {
            let refused = read(kind, bytes).unwrap_err();
            assert_eq!(refused.code, Code::NotASample, "{}", refused.what);
            assert!(refused.what.contains(reason), "{}", refused.what);
        }
        assert_eq!(read(Kind::Xml, b"<a><b>1</b>").unwrap_err().code, Code::MalformedXml);
        assert_eq!(read(Kind::Json, b"{\"a\": ").unwrap_err().code, Code::MalformedJson);
    }

    #[test]
    fn prefixes_are_those_of_the_document() {
        let xml = b"<p:a xmlns:p=\"urn:one\" xmlns=\"urn:two\"><b c=\"1\">x</b></p:a>";
        let sample = read(Kind::Xml, xml).unwrap();
        assert_eq!(sample.root.as_deref(), Some("p:a"));
        assert_eq!(sample.top.inside[0].step, "b");
        assert_eq!(sample.top.inside[0].inside[0].step, "@c");
    }

    #[test]
    fn one_object_a_line_is_split_by_lines() {
        let sample = read(Kind::Json, b"{\"ref\": \"1\"}\n{\"ref\": \"2\"}\n").unwrap();
        assert_eq!(sample.records.len(), 2);
        assert!(sample.layout.unwrap().lines.is_some());
    }
}
