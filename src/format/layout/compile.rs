//! From a layout file as written to a [`Layout`], or to everything that is wrong with it.

use super::{raw::*, *};
use crate::{code::Code, format::charset, problem::Problem};
use encoding_rs::UTF_8;
use std::collections::BTreeSet;

/// Compiles a layout. With a problem there is none.
pub fn compile(name: &str, digest: String, file: &LayoutFile) -> (Option<Layout>, Vec<Problem>) {
    let mut compiler = Compiler { file, problems: Vec::new() };
    let layout = compiler.layout(name, digest);
    let problems = compiler.problems;
    (layout.filter(|_| problems.is_empty()), problems)
}

struct Compiler<'a> {
    file: &'a LayoutFile,
    problems: Vec<Problem>,
}

fn at(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

impl Compiler<'_> {
    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn bad(&mut self, keys: &[&str], what: impl Into<String>) {
        self.problem(Problem::error(Code::BadLayout, keys, what));
    }

    fn layout(&mut self, name: &str, digest: String) -> Option<Layout> {
        let file = self.file;
        let kinds = [
            ("csv", file.csv.is_some()),
            ("fixed", file.fixed.is_some()),
            ("xml", file.xml.is_some()),
            ("lines", file.lines.is_some()),
        ];
        let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        match given.as_slice() {
            [_] => {}
            [] => {
                let what = "nothing says what kind of file this is";
                self.problem(
                    Problem::error(Code::ExclusiveKeys, &["about"], what)
                        .help("add a table `[csv]`, `[fixed]`, `[xml]` or `[lines]`"),
                );
                return None;
            }
            [first, second, ..] => {
                let what =
                    format!("`{first}` and `{second}` exclude each other: a layout is for one kind of file");
                self.problem(Problem::error(Code::ExclusiveKeys, &[second], what).on_key());
                return None;
            }
        }
        let (encoding, wide) = self.encoding();
        let shape = match (&file.csv, &file.fixed, &file.xml) {
            (Some(csv), _, _) => Shape::Csv(self.csv(csv)),
            (_, Some(fixed), _) => Shape::Fixed(self.fixed(fixed)),
            (_, _, Some(xml)) => Shape::Xml(self.xml(xml)),
            (None, None, None) => Shape::Lines,
        };
        if matches!(shape, Shape::Xml(_) | Shape::Lines) && !file.records.is_empty() {
            self.bad(
                &["records"],
                "`records` are for CSV and fixed width; here each record is read by itself",
            );
        }
        let records = self.records(&shape);
        let totals = self.totals(&shape, &records);
        let layout = Layout { name: name.to_owned(), digest, encoding, wide, shape, records, totals };
        if self.problems.is_empty()
            && layout.wide.is_none()
            && let Err(error) = crate::format::cells::head(&layout)
        {
            self.bad(&["csv", "write"], format!("the header cannot be written: {}", error.what));
        }
        Some(layout)
    }

    /// The encoding of records, and of files that are made UTF-8 first.
    fn encoding(&mut self) -> (&'static Encoding, Option<&'static Encoding>) {
        let Some(label) = &self.file.encoding else { return (UTF_8, None) };
        if self.file.xml.is_some() {
            self.bad(&["encoding"], "an XML file says its encoding itself");
        }
        match charset::by_label(label) {
            Ok(encoding) if encoding != UTF_8 && !encoding.is_single_byte() => {
                if self.file.csv.as_ref().is_some_and(|csv| csv.write.is_some()) {
                    let what = format!("files in {} are read, not written", encoding.name());
                    self.bad(&["csv", "write"], what);
                }
                (UTF_8, Some(encoding))
            }
            Ok(encoding) => (encoding, None),
            Err(error) => {
                self.problem(Problem::error(Code::WrongEncoding, &["encoding"], error.what));
                (UTF_8, None)
            }
        }
    }

    /// One ASCII character.
    fn character(&mut self, text: &str, keys: &[&str]) -> Option<u8> {
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(*byte),
            _ => {
                self.bad(keys, "this is one ASCII character, and no line break");
                None
            }
        }
    }

    fn csv(&mut self, keys: &CsvKeys) -> Csv {
        let with_records = !self.file.records.is_empty();
        let delimiter = match &keys.delimiter {
            None => b',',
            Some(text) => self.character(text, &["csv", "delimiter"]).unwrap_or(0),
        };
        let quote = match keys.quote.as_deref() {
            None => Some(b'"'),
            Some("") => None,
            Some(text) => self.character(text, &["csv", "quote"]),
        };
        if quote == Some(delimiter) {
            self.bad(&["csv", "quote"], "the delimiter and the quote are the same character");
        }
        let header_rows = keys.header_rows.unwrap_or(usize::from(!with_records));
        let names = match keys.names {
            Some(names) => names,
            None if header_rows == 0 || with_records => NamesFrom::Layout,
            None => NamesFrom::File,
        };
        let names_row = match names {
            NamesFrom::Layout => {
                if keys.names_row.is_some() {
                    self.bad(
                        &["csv", "names_row"],
                        "the names come from the layout, not from a row of the file",
                    );
                }
                if !keys.optional.is_empty() {
                    self.bad(&["csv", "optional"], "columns by position are all there: none is optional");
                }
                if keys.columns.is_empty() && !with_records {
                    self.problem(
                        Problem::error(Code::MissingKey, &["csv"], "nothing names the columns")
                            .help("list them in `columns`, in order"),
                    );
                }
                0
            }
            NamesFrom::File => {
                if header_rows == 0 || with_records {
                    self.bad(&["csv", "names"], "no row of the file names the columns");
                }
                keys.names_row.unwrap_or(header_rows)
            }
        };
        if names == NamesFrom::File && (names_row == 0 || names_row > header_rows) {
            self.bad(&["csv", "names_row"], format!("there are {header_rows} header rows"));
        }
        if with_records && !keys.columns.is_empty() {
            self.bad(&["csv", "columns"], "`columns` and `records` exclude each other");
        }
        let mut seen = BTreeSet::new();
        for (key, list) in [("columns", &keys.columns), ("optional", &keys.optional)] {
            for (index, name) in list.iter().enumerate() {
                if name.is_empty() {
                    self.bad(&["csv", key, &index.to_string()], "a column needs a name");
                } else if !seen.insert(name.as_str()) {
                    self.bad(
                        &["csv", key, &index.to_string()],
                        format!("the column `{name}` is listed twice"),
                    );
                }
            }
        }
        let write = keys.write.clone().unwrap_or_default();
        if write.line_end == Some(LineEnd::None) {
            self.bad(&["csv", "write", "line_end"], "rows of a CSV file end with a line end");
        }
        let default = match names {
            NamesFrom::File => vec![keys.columns.iter().chain(&keys.optional).cloned().collect()],
            NamesFrom::Layout => Vec::new(),
        };
        let plain = |list: &[String]| list.iter().map(|name| Name::plain(name.as_str())).collect();
        Csv {
            delimiter,
            quote,
            header_rows,
            names_row,
            columns: plain(&keys.columns),
            optional: plain(&keys.optional),
            line_end: write.line_end.unwrap_or(LineEnd::Crlf),
            quoting: write.quote.unwrap_or(Quoting::Needed),
            bom: write.bom,
            header: write.header.unwrap_or(default),
        }
    }

    fn fixed(&mut self, keys: &FixedKeys) -> Fixed {
        if self.file.records.is_empty() {
            self.problem(
                Problem::error(Code::MissingKey, &["fixed"], "nothing says what stands at which position")
                    .help("add `[[records]]` with `fields`"),
            );
        }
        Fixed { unit: keys.unit.unwrap_or(Unit::Bytes), line_end: keys.line_end.unwrap_or(LineEnd::Crlf) }
    }

    fn xml(&mut self, keys: &XmlKeys) -> Xml {
        let namespaces: crate::format::Namespaces =
            keys.namespaces.iter().map(|(prefix, uri)| (prefix.as_str(), uri.as_str())).collect();
        let record = self.path(&keys.record, &namespaces, &["xml", "record"]);
        if record.len() < 2 {
            self.bad(&["xml", "record"], "a record stands below the root: `root/record`");
        }
        let mut keep = Vec::new();
        for (index, text) in keys.keep.iter().enumerate() {
            let index = index.to_string();
            let path = self.path(text, &namespaces, &["xml", "keep", &index]);
            if path.starts_with(&record) || record.starts_with(&path) {
                self.bad(
                    &["xml", "keep", &index],
                    "what is kept stands beside the records, not in or around them",
                );
            }
            keep.push(path);
        }
        if !keys.accept.is_empty() && namespaces.uri("").is_none() {
            self.bad(&["xml", "accept"], "there is no default namespace to read these as");
        }
        Xml {
            namespaces,
            accept: keys.accept.iter().map(|uri| Arc::from(uri.as_str())).collect(),
            record,
            keep,
        }
    }

    fn path(&mut self, text: &str, namespaces: &crate::format::Namespaces, keys: &[&str]) -> Vec<Name> {
        let mut names = Vec::new();
        let mut offset = 0;
        for step in text.split('/') {
            let start = offset;
            offset += step.len() + 1;
            let (prefix, local) = step.split_once(':').unwrap_or(("", step));
            let name = match namespaces.uri(prefix) {
                Some(uri) => Name::spaced(uri.clone(), local),
                None if prefix.is_empty() => Name::plain(local),
                None => {
                    let what = format!("the prefix `{prefix}` is not declared in `xml.namespaces`");
                    self.problem(
                        Problem::error(Code::UnknownPrefix, keys, what)
                            .part(Some(start..start + prefix.len()))
                            .did_you_mean(prefix, namespaces.prefixes()),
                    );
                    Name::plain(local)
                }
            };
            if local.is_empty() {
                self.bad(keys, "a name is missing in this path");
            }
            names.push(name);
        }
        names
    }

    fn records(&mut self, shape: &Shape) -> Vec<RecordType> {
        let file = self.file;
        let mut found: Vec<RecordType> = Vec::new();
        let mut without: Option<usize> = None;
        for (index, keys) in file.records.iter().enumerate() {
            let place = at(&["records", &index.to_string()]);
            let number = index.to_string();
            let under = |key: &'static str| [String::from("records"), number.clone(), key.to_owned()];
            if found.iter().any(|other| other.name.local == keys.name) {
                let what = format!("two kinds of records are called `{}`", keys.name);
                self.problem(Problem::under(Code::BadLayout, &place, "name", what));
            }
            let role = keys.role.unwrap_or(Role::Record);
            if role == Role::Child
                && !file.records.iter().any(|other| other.role.unwrap_or(Role::Record) == Role::Record)
            {
                let what =
                    "a child belongs to the record before it, and no kind of record has the role `record`";
                self.problem(Problem::under(Code::BadLayout, &place, "role", what));
            }
            match &keys.when {
                None => {
                    if let Some(other) = without.replace(index) {
                        let other = file.records.get(other).map_or("", |keys| keys.name.as_str());
                        let what =
                            format!("nothing tells `{}` from `{other}`: both have no `when`", keys.name);
                        self.problem(
                            Problem::under(Code::BadLayout, &place, "name", what).label("`when` is missing"),
                        );
                    }
                }
                Some(when) => self.when(when, &found, &under("when")),
            }
            let fields = self.fields(keys, shape, index);
            let ends = fields.iter().map(|field| field.at + field.width.unwrap_or(1)).max().unwrap_or(0);
            let stated = keys.width.or_else(|| file.fixed.as_ref().and_then(|fixed| fixed.width));
            let width = stated.unwrap_or(ends);
            for (index, field) in fields.iter().enumerate() {
                if field.at + field.width.unwrap_or(1) > width {
                    let what = format!("`{}` ends beyond the width of the record, {width}", field.name.local);
                    let mut place = under("fields").to_vec();
                    place.push(index.to_string());
                    let key = if field.width.is_some() { "to" } else { "column" };
                    self.problem(Problem::under(Code::BadLayout, &place, key, what));
                }
            }
            if width == 0 && role != Role::Ignore {
                let what = format!("the record `{}` has neither fields nor a width", keys.name);
                self.problem(Problem::under(Code::BadLayout, &place, "name", what));
            }
            found.push(RecordType {
                name: Name::plain(keys.name.as_str()),
                role,
                when: keys.when.as_ref().map(|when| (when.at.saturating_sub(1), when.is.clone())),
                width,
                longer: keys.longer,
                fields,
            });
        }
        self.widths(shape, &found);
        found
    }

    /// Without line ends, one width tells where the next record begins.
    fn widths(&mut self, shape: &Shape, records: &[RecordType]) {
        let Shape::Fixed(Fixed { line_end: LineEnd::None, .. }) = shape else { return };
        let widths: BTreeSet<usize> = records.iter().map(|record| record.width).collect();
        if widths.len() > 1 || widths.contains(&0) || records.iter().any(|record| record.longer) {
            let what =
                "without line ends all records have one width: nothing else says where the next begins";
            self.bad(&["fixed", "line_end"], what);
        }
    }

    fn when(&mut self, keys: &WhenKeys, earlier: &[RecordType], place: &[String]) {
        if keys.at == 0 {
            let what = "positions and columns are counted from 1";
            self.problem(Problem::under(Code::BadLayout, place, "at", what));
        }
        if keys.is.is_empty() || keys.is.iter().any(String::is_empty) {
            let what = "nothing tells this kind of record: say what stands there";
            self.problem(Problem::under(Code::BadLayout, place, "is", what));
        }
        for other in earlier {
            let Some((at, texts)) = &other.when else { continue };
            if let Some(text) = keys.is.iter().find(|text| *at + 1 == keys.at && texts.contains(text)) {
                let what = format!("`{}` is told by `{text}` at {} already", other.name.local, keys.at);
                self.problem(Problem::under(Code::BadLayout, place, "is", what));
            }
        }
    }

    fn fields(&mut self, keys: &RecordKeys, shape: &Shape, record: usize) -> Vec<Field> {
        let mut found: Vec<Field> = Vec::new();
        for (index, keys) in keys.fields.iter().enumerate() {
            let place = at(&["records", &record.to_string(), "fields", &index.to_string()]);
            if keys.name.is_empty() || found.iter().any(|other| other.name.local == keys.name) {
                let what = match keys.name.is_empty() {
                    true => "a field needs a name".to_owned(),
                    false => format!("the record has two fields called `{}`", keys.name),
                };
                self.problem(Problem::under(Code::BadLayout, &place, "name", what));
            }
            let fill = match keys.fill.as_deref().map(|text| (text.chars().next(), text.chars().count())) {
                None => ' ',
                Some((Some(fill), 1)) => fill,
                Some(_) => {
                    self.problem(Problem::under(Code::BadLayout, &place, "fill", "this is one character"));
                    ' '
                }
            };
            let (start, width) = match (shape, keys.from, keys.to, keys.column) {
                (Shape::Fixed(_), Some(from), Some(to), None) if from >= 1 && to >= from => {
                    (from - 1, Some(to - from + 1))
                }
                (Shape::Fixed(_), Some(_), Some(_), None) => {
                    let what = "positions are counted from 1, and `to` is not before `from`";
                    self.problem(Problem::under(Code::BadLayout, &place, "to", what));
                    continue;
                }
                (Shape::Csv(_), None, None, Some(column)) if column >= 1 => (column - 1, None),
                (Shape::Csv(_), None, None, Some(_)) => {
                    self.problem(Problem::under(
                        Code::BadLayout,
                        &place,
                        "column",
                        "columns are counted from 1",
                    ));
                    continue;
                }
                (Shape::Csv(_), ..) => {
                    let what = "a field of a CSV row is said by `column`, and by nothing else";
                    self.problem(Problem::under(Code::ExclusiveKeys, &place, "", what));
                    continue;
                }
                (Shape::Fixed(_) | Shape::Xml(_) | Shape::Lines, ..) => {
                    let what = "a field of fixed width is said by `from` and `to`, and by nothing else";
                    self.problem(Problem::under(Code::ExclusiveKeys, &place, "", what));
                    continue;
                }
            };
            let end = start + width.unwrap_or(1);
            if let Some(other) =
                found.iter().find(|other| start < other.at + other.width.unwrap_or(1) && other.at < end)
            {
                let what = format!("`{}` and `{}` overlap", other.name.local, keys.name);
                let key = if width.is_some() { "from" } else { "column" };
                self.problem(Problem::under(Code::BadLayout, &place, key, what));
            }
            if let (Some(value), Some(width)) = (&keys.value, width)
                && value.chars().count() > width
            {
                let what = format!("`{value}` is longer than the field, {width}");
                self.problem(Problem::under(Code::BadLayout, &place, "value", what));
            }
            found.push(Field {
                name: Name::plain(keys.name.as_str()),
                at: start,
                width,
                align: keys.align.unwrap_or(Align::Left),
                fill,
                value: keys.value.clone(),
            });
        }
        found
    }

    fn totals(&mut self, shape: &Shape, records: &[RecordType]) -> Vec<Total> {
        let file = self.file;
        let mut found = Vec::new();
        for (index, keys) in file.totals.iter().enumerate() {
            let place = at(&["totals", &index.to_string()]);
            let under = |key: &str| [place.as_slice(), &[key.to_owned()]].concat();
            let is_xml = matches!(shape, Shape::Xml(_));
            let of = match (&keys.count, &keys.sum) {
                (Some(names), None) if is_xml => {
                    if names.iter().any(|name| name != "record") {
                        let what = "in XML there is one kind of record: `record`";
                        self.problem(Problem::under(Code::UnknownName, &place, "count", what));
                    }
                    Some(Sum::Count(Vec::new()))
                }
                (Some(names), None) => {
                    let kinds = names.iter().enumerate().filter_map(|(index, name)| {
                        self.kind(name, records, &[&under("count")[..], &[index.to_string()]].concat())
                    });
                    Some(Sum::Count(kinds.collect()))
                }
                (None, Some(text)) => {
                    let amount =
                        self.amount(text, keys.when.as_ref(), shape, records, (&place, "sum", "when"));
                    let minus = keys
                        .minus_when
                        .as_ref()
                        .and_then(|minus| self.beside(minus, shape, records, &under("minus_when")));
                    let elsewhere = |at: &Source| match (at, &amount) {
                        (Source::Field(other, _), Some(Amount { at: Source::Field(record, _), .. })) => {
                            record != other
                        }
                        _ => false,
                    };
                    if minus.as_ref().is_some_and(|minus| minus.at.iter().any(elsewhere)) {
                        let what = "the sign stands in another record than the amount";
                        self.problem(Problem::under(Code::BadLayout, &under("minus_when"), "field", what));
                    }
                    amount.map(|amount| Sum::Field { amount, minus })
                }
                _ => {
                    let what = "a total counts or adds up: exactly one of `count` and `sum`";
                    self.problem(Problem::under(Code::ExclusiveKeys, &place, "what", what));
                    None
                }
            };
            let start = keys.start.as_ref().map(|text| {
                self.amount(text, keys.start_when.as_ref(), shape, records, (&place, "start", "start_when"))
            });
            let equals = self.amount(
                &keys.equals,
                keys.equals_when.as_ref(),
                shape,
                records,
                (&place, "equals", "equals_when"),
            );
            if let (Some(of), Some(equals)) = (of, equals) {
                found.push(Total { what: keys.what.clone(), of, start: start.flatten(), equals });
            }
        }
        found
    }

    fn amount(
        &mut self,
        text: &str,
        when: Option<&BesideKeys>,
        shape: &Shape,
        records: &[RecordType],
        (place, key, when_key): (&[String], &str, &str),
    ) -> Option<Amount> {
        let under = |key: &str| [place, &[key.to_owned()]].concat();
        let at = self.source(text, shape, records, &under(key));
        if when.is_some() && !matches!(shape, Shape::Xml(_)) {
            let what = format!("`{when_key}` is for XML; here the kind of record says it");
            self.problem(Problem::under(Code::ExclusiveKeys, place, when_key, what).on_key());
        }
        let when = when.and_then(|when| self.beside(when, shape, records, &under(when_key)));
        Some(Amount { at: at?, when })
    }

    fn beside(
        &mut self,
        keys: &BesideKeys,
        shape: &Shape,
        records: &[RecordType],
        place: &[String],
    ) -> Option<Beside> {
        let under = |key: &str| [place, &[key.to_owned()]].concat();
        if keys.or.is_some() && !matches!(shape, Shape::Xml(_)) {
            let what = "`or` is for XML; here the kind of record says where a field stands";
            self.problem(Problem::under(Code::ExclusiveKeys, place, "or", what).on_key());
        }
        let mut at = vec![self.source(&keys.field, shape, records, &under("field"))?];
        if let Some(other) = &keys.or {
            at.push(self.source(other, shape, records, &under("or"))?);
        }
        Some(Beside { at, is: keys.is.clone() })
    }

    fn kind(&mut self, name: &str, records: &[RecordType], place: &[String]) -> Option<usize> {
        let found = records.iter().position(|record| record.name.local == name);
        if found.is_none() {
            let what = format!("there is no kind of record called `{name}`");
            let known: Vec<&str> = records.iter().map(|record| record.name.local.as_str()).collect();
            let problem = Problem::under(Code::UnknownName, place, "", what).part(Some(0..name.len()));
            self.problem(problem.did_you_mean(name, known));
        }
        found
    }

    fn source(
        &mut self,
        text: &str,
        shape: &Shape,
        records: &[RecordType],
        place: &[String],
    ) -> Option<Source> {
        if let Shape::Xml(xml) = shape {
            let keys: Vec<&str> = place.iter().map(String::as_str).collect();
            let path = self.path(text, &xml.namespaces, &keys);
            return Some(Source::Path(path));
        }
        let Some((record, field)) = text.split_once('.') else {
            let what = "a field of a record is written `record.field`";
            self.problem(Problem::under(Code::BadLayout, place, "", what));
            return None;
        };
        let kind = self.kind(record, records, place)?;
        let fields = records.get(kind).map(|record| record.fields.as_slice()).unwrap_or_default();
        let found = fields.iter().position(|known| known.name.local == field);
        if found.is_none() {
            let what = format!("the record `{record}` has no field `{field}`");
            let known: Vec<&str> = fields.iter().map(|field| field.name.local.as_str()).collect();
            let part = record.len() + 1..text.len();
            let problem = Problem::under(Code::UnknownName, place, "", what).part(Some(part));
            self.problem(problem.did_you_mean(field, known));
        }
        Some(Source::Field(kind, found?))
    }
}
