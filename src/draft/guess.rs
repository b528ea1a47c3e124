//! The table: which place of the sample goes to which field of the event. Everything in it is a guess and says why, but
//! for values that the event's schema leaves no choice in. What no row knows is listed, so that `ignore` can name it.

use super::{
    names,
    sample::Node,
    values::{self, Way},
};
use crate::{
    event::schema::{EventSchema, Field, Kind},
    mapping::{
        path::Path,
        raw::{Check, RowKeys, TextKeys},
    },
    tree::Tree,
};
use std::collections::{BTreeMap, BTreeSet};

/// A table with what belongs to it.
#[derive(Debug, Default)]
pub struct Table {
    /// The rows.
    pub rows: Vec<RowKeys>,
    /// Places that no row knows.
    pub ignore: Vec<String>,
    /// Code lists to write, by the field they are for.
    pub codes: BTreeMap<String, Vec<(String, String)>>,
}

/// What the guesses are made from.
pub struct Known<'a> {
    /// The event's schema.
    pub schema: &'a EventSchema,
    /// The event's example.
    pub example: &'a Tree,
    /// The adapter's name.
    pub name: &'a str,
    /// Fields that are not taken from the sample, whatever looks like them, and why: what was tried and refused.
    pub refused: BTreeMap<String, String>,
    /// Whether all the fields that the example has are filled, not only those that must be: some events need a field only
    /// because another is there.
    pub everything: bool,
}

/// A plain place of the sample.
struct Place<'n> {
    /// As a row writes it.
    path: String,
    names: Vec<String>,
    node: &'n Node,
}

/// A plain field of the event.
struct Target<'f> {
    /// As a row writes it, relative to its group.
    path: String,
    names: Vec<String>,
    field: &'f Field,
    /// Whether it must be there if the groups named by its parents are.
    required: bool,
    /// The optional record that it stands in, if there is one: it need not be there as long as nothing in it is.
    optional_in: Option<String>,
}

/// Guesses the table for a sample.
pub fn table(known: &Known<'_>, top: &Node) -> Table {
    let mut table = Table::default();
    let scope = Scope { known, prefix: String::new() };
    let (rows, used) = scope.rows(&known.schema.root, known.example, top, &mut table.codes);
    table.rows = rows;
    table.ignore = unknown(top, "", &used);
    table
}

/// Places that are not among those used, the highest first: what is below goes with it.
fn unknown(node: &Node, prefix: &str, used: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for inside in node.inside.iter().filter(|inside| !inside.unnameable) {
        let path = if prefix.is_empty() { inside.step.clone() } else { format!("{prefix}/{}", inside.step) };
        let below = format!("{path}/");
        if used.iter().any(|used| used.starts_with(&below)) {
            found.extend(unknown(inside, &path, used));
        } else if !used.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// A group of the event, or the event as a whole.
struct Scope<'a> {
    known: &'a Known<'a>,
    /// What stands before the paths of its fields: `lines[].`.
    prefix: String,
}

/// A row with its place in the order of the document.
type Placed = (usize, RowKeys);

impl Scope<'_> {
    /// The rows for a group of the event from a group of the sample, and the places that they use, from that group on.
    fn rows(
        &self,
        group: &Field,
        example: &Tree,
        node: &Node,
        codes: &mut BTreeMap<String, Vec<(String, String)>>,
    ) -> (Vec<RowKeys>, BTreeSet<String>) {
        let (mut places, mut groups) = (Vec::new(), Vec::new());
        gather(node, &mut Vec::new(), &mut Vec::new(), &mut places, &mut groups);
        let (mut targets, mut lists) = (Vec::new(), Vec::new());
        wanted(group, &mut Vec::new(), true, None, &mut targets, &mut lists);

        let mut rows: Vec<Placed> = Vec::new();
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut filled: BTreeSet<String> = BTreeSet::new();
        let mut refused: BTreeMap<String, String> = self.known.refused.clone();
        for (target, place, way) in self.pairs(&targets, &places, &mut refused) {
            let mut row = way.row;
            row.event = Some(target.path.clone());
            row.document = Some(place.path.clone());
            let why = [format!("`{}` looks like it", place.names.join("/")), way.why];
            row.guess = Some(why.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "));
            if row.text.as_ref().is_some_and(|text| text.trim) {
                row.lossy = Some("blanks around the text are not kept".to_owned());
            }
            if !way.codes.is_empty() {
                let name = format!("{}-{}", self.known.name, target.names.join("-").replace('_', "-"));
                row.codes = Some(name.clone());
                codes.insert(name, way.codes);
            }
            used.insert(place.path.clone());
            filled.insert(target.path.clone());
            let order = places.iter().position(|other| other.path == place.path).unwrap_or(usize::MAX);
            rows.push((order, row));
        }
        for (path, field, required) in &lists {
            let example = first_of(example, path);
            // What holds fields of the group around is no entry of it.
            let free: Vec<(String, Vec<String>, &Node)> = groups
                .iter()
                .filter(|(place, ..)| !used.iter().any(|used| used.starts_with(&format!("{place}/"))))
                .cloned()
                .collect();
            if let Some((order, row, inside)) = self.list(path, field, &example, &free, codes) {
                used.extend(inside);
                filled.insert(path.clone());
                rows.push((places.len() + order, row));
            } else if *required || (self.known.everything && example != Tree::Null) {
                rows.push((usize::MAX, self.made_up(path, field, &example, &places, &filled, &rows)));
                filled.insert(path.clone());
            }
        }
        rows.sort_by_key(|(order, _)| *order);
        let mut rows: Vec<RowKeys> = rows.into_iter().map(|(_, row)| row).collect();
        // What must be there and has no counterpart: the example's value, so that the event is one at all.
        for target in &targets {
            let begun = target
                .optional_in
                .as_ref()
                .is_none_or(|record| filled.iter().any(|path| path.starts_with(&format!("{record}."))));
            if (self.known.everything || (target.required && begun)) && !filled.contains(&target.path) {
                let why = refused.get(&format!("{}{}", self.prefix, target.path)).cloned();
                rows.extend(self.constant(target, at(example, &target.path), why));
            }
        }
        (rows, used)
    }

    /// Which places go to which fields, the likeliest first, each at most once.
    fn pairs<'p, 'n>(
        &self,
        targets: &'p [Target<'p>],
        places: &'p [Place<'n>],
        refused: &mut BTreeMap<String, String>,
    ) -> Vec<(&'p Target<'p>, &'p Place<'n>, Way)> {
        let mut likely: Vec<(u32, usize, usize, Way)> = Vec::new();
        for (t, target) in targets.iter().enumerate() {
            let full = format!("{}{}", self.prefix, target.path);
            if self.known.refused.contains_key(&full) {
                continue;
            }
            for (p, place) in places.iter().enumerate() {
                let by_value = proven_as(target, &place.node.values);
                let named =
                    names::likeness(&target.names, &place.names).max(self.within_group(target, place));
                let likeness = named.max(if by_value { names::ENOUGH } else { 0 });
                if likeness < names::ENOUGH {
                    continue;
                }
                match values::way(target.field, &place.node.values) {
                    Ok(mut way) => {
                        if named < names::ENOUGH {
                            way.why = "its name says nothing, its check digits do".to_owned();
                        }
                        likely.push((likeness, t, p, way));
                    }
                    Err(why) => {
                        let why = format!("`{}` looks like it, but {why}", place.names.join("/"));
                        refused.entry(full.clone()).or_insert(why);
                    }
                }
            }
        }
        likely.sort_by_key(|(likeness, t, p, _)| (u32::MAX - likeness, *t, *p));
        let (mut taken_targets, mut taken_places) = (BTreeSet::new(), BTreeSet::new());
        let mut found = Vec::new();
        for (_, t, p, way) in likely {
            if taken_targets.contains(&t) || taken_places.contains(&p) {
                continue;
            }
            if let (Some(target), Some(place)) = (targets.get(t), places.get(p)) {
                taken_targets.insert(t);
                taken_places.insert(p);
                found.push((target, place, way));
            }
        }
        found
    }

    /// Within the group `lines[]` the place `id` is the `line_id`.
    fn within_group(&self, target: &Target<'_>, place: &Place<'_>) -> u32 {
        let group =
            self.prefix.trim_end_matches("[].").rsplit('.').next().unwrap_or_default().trim_end_matches('s');
        if group.is_empty() {
            return 0;
        }
        let longer = |names: &[String]| vec![format!("{group} {}", names.join(" "))];
        names::likeness(&target.names, &longer(&place.names))
    }

    /// A list of the event from a repeated group of the sample, if one has at least one field of it.
    fn list(
        &self,
        path: &str,
        field: &Field,
        example: &Tree,
        groups: &[(String, Vec<String>, &Node)],
        codes: &mut BTreeMap<String, Vec<(String, String)>>,
    ) -> Option<(usize, RowKeys, BTreeSet<String>)> {
        let items = field.items.as_deref()?;
        let scope = Scope { known: self.known, prefix: format!("{}{path}[].", self.prefix) };
        let made = groups.iter().enumerate().filter_map(|(order, (place, names, node))| {
            let mut own = BTreeMap::new();
            let (rows, used) = scope.rows(items, example, node, &mut own);
            let hits = rows.iter().filter(|row| row.document.is_some()).count();
            let named = names::likeness(std::slice::from_ref(&field.name), names) as usize;
            (hits > 0).then_some((hits * 100 + named, order, place, rows, used, own))
        });
        let (_, order, place, fields, used, own) =
            made.max_by_key(|(score, order, ..)| (*score, usize::MAX - order))?;
        codes.extend(own);
        let guess = Some(format!("`{place}` is repeated and has fields like these"));
        let row = RowKeys {
            event: Some(format!("{path}[]")),
            document: Some(format!("{place}[]")),
            fields,
            guess,
            ..RowKeys::default()
        };
        let used = used.into_iter().map(|inside| format!("{place}/{inside}"));
        Some((order, row, used.chain([place.clone()]).collect()))
    }

    /// A list that must be there, of which the sample knows nothing: one entry. Amounts that must add up to a field that
    /// is read are read from the same place.
    fn made_up(
        &self,
        path: &str,
        field: &Field,
        example: &Tree,
        places: &[Place<'_>],
        filled: &BTreeSet<String>,
        rows: &[Placed],
    ) -> RowKeys {
        let guess = Some("the sample has no repeated group: one entry is made up".to_owned());
        let mut row = RowKeys { event: Some(format!("{path}[]")), guess, ..RowKeys::default() };
        let Some(items) = field.items.as_deref() else { return row };
        let (mut targets, mut lists) = (Vec::new(), Vec::new());
        wanted(items, &mut Vec::new(), true, None, &mut targets, &mut lists);
        let scope = Scope { known: self.known, prefix: format!("{}{path}[].", self.prefix) };
        for target in targets.iter().filter(|target| target.required && target.optional_in.is_none()) {
            let full = format!("{}{}", scope.prefix, target.path);
            let total = self.known.schema.sum_paths().iter().find(|(_, parts)| parts.to_string() == full);
            let total = total.map(|(total, _)| total.to_string()).filter(|total| filled.contains(total));
            let from = total.and_then(|total| {
                let (_, row) = rows.iter().find(|(_, row)| row.event.as_ref() == Some(&total))?;
                let place = places.iter().find(|place| Some(&place.path) == row.document.as_ref())?;
                Some((total, row, place))
            });
            match from {
                Some((total, source, place)) => row.fields.push(RowKeys {
                    event: Some(target.path.clone()),
                    document: Some(place.path.clone()),
                    guess: Some(format!("the whole `{total}` in one entry")),
                    money: source.money,
                    integer: source.integer,
                    ..RowKeys::default()
                }),
                None => row.fields.extend(scope.constant(target, at(example, &target.path), None)),
            }
        }
        for (path, field, _) in lists.iter().filter(|(_, _, required)| *required) {
            let example = first_of(example, path);
            row.fields.push(scope.made_up(path, field, &example, &[], &BTreeSet::new(), &[]));
        }
        row
    }

    /// A field as the example has it.
    fn constant(
        &self,
        target: &Target<'_>,
        example: Option<&Tree>,
        refused: Option<String>,
    ) -> Option<RowKeys> {
        let mut row = RowKeys { event: Some(target.path.clone()), ..RowKeys::default() };
        let only =
            target.field.values.as_ref().filter(|values| values.len() == 1).and_then(|values| values.first());
        if let Some(value) = only {
            row.constant = Tree::from_json(value).to_plain_text();
            return Some(row);
        }
        let nothing = "nothing in the sample looks like it: this is the example's value";
        let why =
            refused.map_or_else(|| nothing.to_owned(), |why| format!("{why}: this is the example's value"));
        if target.field.description.contains("name of its adapter") {
            row.constant = Some(self.known.name.to_owned());
            row.guess = Some("the adapter's name".to_owned());
            return Some(row);
        }
        row.guess = Some(why);
        match (example, target.field.kind) {
            (Some(Tree::List(items)), Kind::List) => {
                let texts: Vec<String> = items.iter().filter_map(Tree::to_plain_text).collect();
                let join =
                    ["|", ";", "~"].into_iter().find(|join| !texts.iter().any(|text| text.contains(join)))?;
                row.template = Some(literal(&texts.join(join)));
                row.text = Some(TextKeys { join: Some(join.to_owned()), ..TextKeys::default() });
                Some(row)
            }
            (example, _) => {
                let listed = || Tree::from_json(target.field.values.as_ref()?.first()?).to_plain_text();
                row.constant = example.and_then(Tree::to_plain_text).or_else(listed);
                row.constant.is_some().then_some(row)
            }
        }
    }
}

/// A text as a template that gives just this text.
fn literal(text: &str) -> String {
    text.replace("{{", "{ {").replace("{%", "{ %").replace("{#", "{ #")
}

/// Whether these values are by their check digits what the field is by its name.
fn proven_as(target: &Target<'_>, values: &[String]) -> bool {
    let words = names::words(&target.field.name);
    let proven = values::proven(values);
    (proven == Some(Check::NhsNumber) && words.contains("nhs"))
        || (proven == Some(Check::Nino) && words.contains("nino"))
}

/// The plain places below a node, and the groups that may be lists, each with its path and names.
fn gather<'n>(
    node: &'n Node,
    path: &mut Vec<String>,
    names: &mut Vec<String>,
    places: &mut Vec<Place<'n>>,
    groups: &mut Vec<(String, Vec<String>, &'n Node)>,
) {
    for inside in node.inside.iter().filter(|inside| !inside.unnameable) {
        path.push(inside.step.clone());
        names.push(inside.name.trim_start_matches('@').to_owned());
        if !inside.inside.is_empty() {
            groups.push((path.join("/"), names.clone(), inside));
        }
        if !inside.several {
            if inside.inside.is_empty() || !inside.values.is_empty() {
                places.push(Place { path: path.join("/"), names: names.clone(), node: inside });
            }
            gather(inside, path, names, places, groups);
        }
        path.pop();
        names.pop();
    }
}

/// The plain fields of a group, and its lists of groups with whether they must be there.
fn wanted<'f>(
    group: &'f Field,
    path: &mut Vec<String>,
    required: bool,
    optional_in: Option<&str>,
    targets: &mut Vec<Target<'f>>,
    lists: &mut Vec<(String, &'f Field, bool)>,
) {
    for field in &group.fields {
        path.push(field.name.clone());
        let here = path.join(".");
        let list_of_groups = field.items.as_ref().is_some_and(|items| items.kind == Kind::Record);
        match field.kind {
            Kind::Record if !field.fields.is_empty() => {
                let optional = if field.required { optional_in.map(str::to_owned) } else { Some(here) };
                wanted(field, path, required, optional.as_deref(), targets, lists);
            }
            Kind::List if list_of_groups => {
                lists.push((here, field, field.required && optional_in.is_none()))
            }
            Kind::Text
            | Kind::Integer
            | Kind::Number
            | Kind::Boolean
            | Kind::List
            | Kind::Record
            | Kind::Any => {
                targets.push(Target {
                    path: here,
                    names: path.clone(),
                    field,
                    required: field.required && required,
                    optional_in: optional_in.map(str::to_owned),
                });
            }
        }
        path.pop();
    }
}

/// The value at a path of the event.
fn at<'t>(example: &'t Tree, path: &str) -> Option<&'t Tree> {
    Path::in_event(path).ok()?.find(example)
}

/// The plain value of the example at a path through lists, of which the first entry counts: `lines[].amount`.
pub fn example_of(example: &Tree, path: &str) -> Option<String> {
    at(example, &path.replace("[]", "[1]"))?.to_plain_text()
}

/// The first entry of a list in the example.
fn first_of(example: &Tree, path: &str) -> Tree {
    match at(example, path) {
        Some(Tree::List(items)) => items.first().cloned().unwrap_or_default(),
        Some(_) | None => Tree::default(),
    }
}
