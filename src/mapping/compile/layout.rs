//! A mapping against the layout of its document: the layout is there, it has every place that a row names, and texts fit.

use super::*;
use crate::format::layout::{Place, Role};

impl Compiler<'_> {
    /// The layout of the document, if its format has one.
    pub(super) fn layout(&mut self) -> Option<Arc<Layout>> {
        let document = &self.file.document;
        let Some(name) = &document.layout else {
            if document.format == Format::Fixed {
                let what = "a document of fixed width is read and written by a layout";
                self.problem(
                    Problem::error(Code::MissingKey, &["document", "format"], what)
                        .label("`layout` is missing"),
                );
            }
            return None;
        };
        let Some(layout) = self.with.layouts.get(name).cloned() else {
            if !self.with.broken_layouts.contains(name) {
                let known: Vec<&str> = self.with.layouts.keys().map(String::as_str).collect();
                let problem = Problem::error(
                    Code::UnknownName,
                    &["document", "layout"],
                    format!("there is no layout `{name}`"),
                )
                .label("no such file in mappings/layouts/")
                .did_you_mean(name, known);
                self.problem(problem);
            }
            self.unsound = true;
            return None;
        };
        if layout.format() != document.format {
            let what = format!("the layout `{name}` is not for this format");
            self.problem(Problem::error(Code::WrongConversion, &["document", "layout"], what));
            return None;
        }
        if document.encoding.is_some() && !document.format.is_xml() {
            let what = "the layout says the encoding";
            self.problem(Problem::error(Code::ExclusiveKeys, &["document", "encoding"], what).on_key());
        }
        if let Some(places) = layout.places() {
            let file = self.file;
            self.rows_in_layout(&places, &file.fields, &["fields".to_owned()], None);
            for (index, text) in file.ignore.iter().enumerate() {
                self.in_layout(&places, text, &["ignore".to_owned()], &index.to_string(), None);
            }
        }
        Some(layout)
    }

    fn rows_in_layout(&mut self, places: &[Place<'_>], rows: &[RowKeys], at: &[String], below: Option<&str>) {
        for (index, row) in rows.iter().enumerate() {
            let at = [at, &[index.to_string()]].concat();
            for (index, condition) in row.when.iter().enumerate() {
                let at = [&at[..], &["when".to_owned(), index.to_string()]].concat();
                if let Some(text) = &condition.document {
                    self.in_layout(places, text, &at, "document", below);
                }
            }
            let under = [&at[..], &["fields".to_owned()]].concat();
            match &row.document {
                None => self.rows_in_layout(places, &row.fields, &under, below),
                Some(text) if row.fields.is_empty() || row.packed.is_some() => {
                    if let Some(place) = self.in_layout(places, text, &at, "document", below) {
                        self.fits(row, place, &at);
                    }
                }
                Some(text) if text.contains("{n}") => {
                    self.in_layout(places, text, &at, "document", below);
                }
                Some(text) => {
                    let name = Path::in_document(text, None).ok().and_then(|path| {
                        let [step] = path.steps() else { return None };
                        Some(step.name.local.to_string())
                    });
                    let known: BTreeSet<&str> =
                        places.iter().filter_map(|place| place.below.map(|(name, _)| name)).collect();
                    match name.filter(|name| below.is_none() && known.contains(name.as_str())) {
                        Some(name) => self.rows_in_layout(places, &row.fields, &under, Some(&name)),
                        None => {
                            let what = format!("the layout has no header and no child called `{text}`");
                            let problem = Problem::under(Code::NotInLayout, &at, "document", what)
                                .did_you_mean(text.trim_end_matches("[]"), known);
                            self.problem(problem);
                        }
                    }
                }
            }
        }
    }

    /// The place of a path; told if the layout has none.
    fn in_layout<'p>(
        &mut self,
        places: &'p [Place<'p>],
        text: &str,
        at: &[String],
        key: &str,
        below: Option<&str>,
    ) -> Option<&'p Place<'p>> {
        // That it is no path is told elsewhere.
        let path = Path::in_document(text, None).ok()?;
        let names: Vec<String> =
            path.steps().iter().map(|step| step.name.local.replace("{n}", "1")).collect();
        let (below, name) = match (below, names.as_slice()) {
            (below, [name]) => (below, name),
            (None, [group, name]) => (Some(group.as_str()), name),
            (_, names) => (below, names.last()?),
        };
        let within = |place: &&Place<'_>| place.below.map(|(name, _)| name) == below;
        let found = places.iter().filter(within).find(|place| place.name == name);
        let whole = below.is_none()
            && key != "document"
            && places.iter().any(|p| p.below.is_some_and(|(b, _)| b == name));
        if found.is_none() && !whole {
            let what = match below {
                None => format!("the layout has no field `{name}`"),
                Some(group) => format!("the layout has no field `{name}` in `{group}`"),
            };
            let known: Vec<&str> = places.iter().filter(within).map(|place| place.name).collect();
            let groups = places.iter().filter_map(|place| place.below.map(|(name, _)| name));
            let known: BTreeSet<&str> = match below {
                Some(group) if known.is_empty() => groups.filter(|name| *name != group).collect(),
                Some(_) | None => known.into_iter().collect(),
            };
            let problem = Problem::under(Code::NotInLayout, at, key, what)
                .label("not in the layout")
                .part(text.rfind(name.as_str()).map(|at| at..at + name.len()))
                .did_you_mean(name, known);
            self.problem(problem);
        }
        if let Some((_, Role::Child)) = found.and_then(|place| place.below)
            && let [step, _] = path.steps()
            && step.which == super::super::path::Which::One
        {
            let what = "a record may have several of these: say which, or give the row `fields`";
            self.problem(Problem::under(Code::BadPath, at, key, what));
        }
        found
    }

    /// A field of fixed width holds no more than it does.
    fn fits(&mut self, row: &RowKeys, place: &Place<'_>, at: &[String]) {
        let Some(width) = place.width else { return };
        let text = row.text.as_ref();
        let pad = text.and_then(|text| text.pad.as_ref()).map(|pad| pad.width);
        let constant = row.constant.as_ref().map(|text| text.chars().count());
        let at_text = [at, &["text".to_owned()]].concat();
        let tried = [
            (at_text.as_slice(), "max", text.and_then(|text| text.max)),
            (at_text.as_slice(), "pad", pad),
            (at, "constant", constant.filter(|_| row.event.is_none())),
            (at, "packed_max", row.packed_max),
        ];
        for (at, key, long) in tried {
            if let Some(long) = long.filter(|long| *long > width) {
                let what =
                    format!("`{}` is {width} wide in the layout, and this lets {long} through", place.name);
                self.problem(
                    Problem::under(Code::NotInLayout, at, key, what).label(format!("at most {width}")),
                );
            }
        }
    }
}
