//! Reads the files of a project and checks them as a whole. The only part of `config` that touches files.

use super::{
    Config, bridge, compile as adapters, plan, proof,
    raw::{
        adapter::AdapterFile,
        batch::CalendarFile,
        bridge::BridgeFile,
        layout::LayoutFile,
        mapping::{CasesFile, MappingFile},
    },
    schema::FileKind,
    source::{Diagnostic, SourceFile},
    statement::Statement,
};
use crate::{
    batch::Calendar,
    code::Code,
    event::{hex, schema::EventSchema},
    format::{Format, Layout, Limits, layout},
    mapping::{self, Mapping, codes::CodeList},
    problem::Problem,
    tree::Tree,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The files of a council's bridge, read and checked.
#[derive(Debug)]
pub struct Project {
    /// The folder of `packhorse.toml`.
    pub folder: PathBuf,
    /// Where its adapters stand, below the folder.
    pub adapters_folder: PathBuf,
    /// Where its mappings stand, below the folder.
    pub mappings_folder: PathBuf,
    /// Every file that was read, by its path relative to the folder.
    pub files: BTreeMap<PathBuf, SourceFile>,
    /// Everything that is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// The event schemas by type.
    pub schemas: BTreeMap<String, Arc<EventSchema>>,
    /// An example of each event, as data.
    pub examples: BTreeMap<String, Tree>,
    /// The layouts by name.
    pub layouts: BTreeMap<String, Arc<Layout>>,
    /// The mappings by name.
    pub mappings: BTreeMap<String, Arc<Mapping>>,
    /// The cases by their mapping's name, with their file.
    pub cases: BTreeMap<String, (PathBuf, CasesFile)>,
    /// The adapters by name.
    pub adapters: BTreeMap<String, Arc<plan::Adapter>>,
    /// What `run` carries out; absent if anything is wrong, or if there is no `packhorse.toml`.
    pub config: Option<Config>,
    codes: HashMap<String, Arc<CodeList>>,
    calendars: BTreeMap<String, Arc<Calendar>>,
    broken: BTreeSet<String>,
    broken_layouts: BTreeSet<String>,
    digests: HashMap<PathBuf, String>,
    codes_digests: BTreeMap<String, String>,
}

impl Project {
    /// Reads and checks the project of a settings file. Without the file, the adapters and mappings beside where it
    /// would stand are checked all the same.
    pub fn load(settings: &Path) -> Project {
        let folder =
            settings.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut project = Project {
            folder: folder.to_owned(),
            adapters_folder: PathBuf::new(),
            mappings_folder: PathBuf::new(),
            files: BTreeMap::new(),
            diagnostics: Vec::new(),
            schemas: BTreeMap::new(),
            examples: BTreeMap::new(),
            layouts: BTreeMap::new(),
            mappings: BTreeMap::new(),
            cases: BTreeMap::new(),
            adapters: BTreeMap::new(),
            config: None,
            codes: HashMap::new(),
            calendars: BTreeMap::new(),
            broken: BTreeSet::new(),
            broken_layouts: BTreeSet::new(),
            digests: HashMap::new(),
            codes_digests: BTreeMap::new(),
        };
        let name = PathBuf::from(settings.file_name().unwrap_or_default());
        let bridge: Option<BridgeFile> = match settings.exists() {
            true => project.read(&name, FileKind::Bridge),
            false => None,
        };
        let folder_of =
            |own: Option<&String>, default: &str| PathBuf::from(own.map_or(default, String::as_str));
        let mappings = folder_of(bridge.as_ref().and_then(|file| file.mappings_folder.as_ref()), "mappings");
        let adapters = folder_of(bridge.as_ref().and_then(|file| file.adapters_folder.as_ref()), "adapters");
        let own_codes = bridge.as_ref().and_then(|file| file.codes_folder.as_ref()).map(PathBuf::from);
        project.adapters_folder = adapters.clone();
        project.mappings_folder = mappings.clone();
        project.schemas_in(&mappings.join("events"));
        project.codes_in(&mappings.join("codes"));
        if let Some(codes) = own_codes {
            project.codes_in(&codes);
        }
        project.calendars_in(&mappings.join("calendars"));
        project.layouts_in(&mappings.join("layouts"));
        project.mappings_in(&mappings);
        project.adapters_in(&adapters);
        if let Some(bridge) = bridge {
            project.bridge(&name, &bridge);
        }
        project.unused();
        project.diagnostics.sort_by(|a, b| (&a.path, a.span.start).cmp(&(&b.path, b.span.start)));
        project
    }

    /// Whether anything is wrong that keeps `run` from starting.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }

    fn text(&mut self, path: &Path) -> Option<String> {
        match std::fs::read_to_string(self.folder.join(path)) {
            Ok(text) => {
                let digest = digest_of(text.as_bytes());
                self.digests.insert(path.to_owned(), digest);
                Some(text)
            }
            Err(error) => {
                let file = SourceFile::plain(path.to_owned(), String::new());
                let what = match error.kind() {
                    std::io::ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
                    _ => format!("the file cannot be read: {error}"),
                };
                self.diagnostics
                    .push(Diagnostic::new(&file, Problem::error(Code::CannotReadFile, &[], what)));
                self.files.insert(path.to_owned(), file);
                None
            }
        }
    }

    fn tell(&mut self, path: &Path, problems: Vec<Problem>) {
        if let Some(file) = self.files.get(path) {
            let new: Vec<Diagnostic> =
                problems.into_iter().map(|problem| Diagnostic::new(file, problem)).collect();
            self.diagnostics.extend(new);
        }
    }

    /// Reads a TOML file of a kind; all that its schema does not allow is told.
    fn read<T: DeserializeOwned>(&mut self, path: &Path, kind: FileKind) -> Option<T> {
        let text = self.text(path)?;
        let (file, mut problems) = SourceFile::parse(path.to_owned(), text);
        if file.well_formed {
            problems.extend(kind.check(&file));
        }
        let fine = problems.is_empty();
        let parsed = match fine {
            false => None,
            true => match toml::from_str::<T>(&file.text) {
                Ok(parsed) => Some(parsed),
                Err(error) => {
                    let mut problem = Problem::error(Code::WrongType, &[], error.message().to_owned());
                    problem.part = error.span();
                    problems.push(problem);
                    None
                }
            },
        };
        if file.value.get("version").and_then(Value::as_i64).is_some_and(|version| version != 1) {
            let what = "this version of the file format is not known; this Packhorse reads version 1";
            problems.push(Problem::error(Code::WrongType, &["version"], what));
        }
        self.files.insert(path.to_owned(), file);
        self.tell(path, problems);
        parsed
    }

    /// The files of a folder with this ending, sorted; not those in folders below.
    fn files_in(&self, folder: &Path, ending: &str) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.folder.join(folder))
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(folder.join(entry.ok()?.file_name())))
            .filter(|path| path.to_string_lossy().ends_with(ending) && self.folder.join(path).is_file())
            .collect();
        found.sort();
        found
    }

    fn json(&mut self, path: &Path) -> Option<Tree> {
        let text = self.text(path)?;
        let read = Format::Json.decode(text.as_bytes(), None, &Limits::default());
        let file = SourceFile::plain(path.to_owned(), text);
        let result = match read {
            Ok(tree) => Some(tree),
            Err(error) => {
                let mut problem = Problem::error(error.code, &[], error.what.clone());
                if let Some(place) = error.at {
                    let line_start: usize = file
                        .text
                        .split_inclusive('\n')
                        .take(place.line.saturating_sub(1))
                        .map(str::len)
                        .sum();
                    let at = (line_start + place.column.saturating_sub(1)).min(file.text.len());
                    problem.part = Some(at..at + 1);
                }
                self.diagnostics.push(Diagnostic::new(&file, problem));
                None
            }
        };
        self.files.insert(path.to_owned(), file);
        result
    }

    fn schemas_in(&mut self, folder: &Path) {
        for path in self.files_in(folder, ".schema.json") {
            let Some(tree) = self.json(&path) else { continue };
            let name = file_name(&path, ".schema.json");
            match EventSchema::compile(tree.to_json()) {
                Err(bad) => {
                    let text = self.files.get(&path).map(|file| file.text.clone()).unwrap_or_default();
                    let problems = bad.into_iter().map(|bad| {
                        let mut problem = Problem::error(Code::BadSchema, &[], bad.what);
                        let key = bad.at.rsplit('/').next().unwrap_or_default().to_owned();
                        problem.part = Some(key).filter(|key| !key.is_empty()).and_then(|key| {
                            text.find(&format!("\"{key}\"")).map(|at| at..at + key.len() + 2)
                        });
                        problem
                    });
                    let problems = problems.collect();
                    self.tell(&path, problems);
                }
                Ok(schema) if schema.event_type != name => {
                    let what =
                        format!("`x-event-type` is `{}`, but the file is called `{name}`", schema.event_type);
                    self.tell(&path, vec![Problem::error(Code::UnknownKeyword, &[], what)]);
                }
                Ok(schema) => {
                    let unknown: Vec<Problem> = schema
                        .subject
                        .iter()
                        .chain(schema.unique_paths())
                        .chain(schema.sum_paths().iter().chain(schema.part_paths()).flat_map(|(a, b)| [a, b]))
                        .filter(|path| schema.field(path).is_none())
                        .map(|path| {
                            Problem::error(
                                Code::UnknownKeyword,
                                &[],
                                format!("the schema has no field `{path}`"),
                            )
                        })
                        .collect();
                    self.tell(&path, unknown);
                    self.schemas.insert(name, Arc::new(schema));
                }
            }
        }
        for path in self.files_in(folder, ".example.json") {
            let Some(tree) = self.json(&path) else { continue };
            let name = file_name(&path, ".example.json");
            let data = tree.at(&["data"]).cloned().unwrap_or_default();
            let Some(schema) = self.schemas.get(&name).cloned() else {
                let what = format!("there is no schema `{name}` to this example");
                self.tell(&path, vec![Problem::error(Code::BadExample, &[], what)]);
                continue;
            };
            let breaches = schema.breaches(&data).into_iter();
            let problems = breaches.map(|breach| {
                Problem::error(Code::BadExample, &[], format!("`{}`: {}", breach.field, breach.what))
            });
            let problems = problems.collect();
            self.tell(&path, problems);
            self.examples.insert(name, data);
        }
        let without: Vec<String> =
            self.schemas.keys().filter(|name| !self.examples.contains_key(*name)).cloned().collect();
        for name in without {
            let path = folder.join(format!("{name}.schema.json"));
            let what = format!("there is no example beside this schema: {name}.example.json");
            self.tell(&path, vec![Problem::error(Code::BadExample, &[], what).warning()]);
        }
    }

    fn codes_in(&mut self, folder: &Path) {
        for path in self.files_in(folder, ".csv") {
            let Some(text) = self.text(&path) else { continue };
            let name = file_name(&path, ".csv");
            let (list, bad) = CodeList::parse(&name, &text);
            let starts: Vec<usize> = text
                .split_inclusive('\n')
                .scan(0, |at, line| {
                    let start = *at;
                    *at += line.len();
                    Some(start)
                })
                .collect();
            self.files.insert(path.clone(), SourceFile::plain(path.clone(), text));
            let problems = bad.into_iter().map(|bad| {
                let mut problem = Problem::error(Code::BadCodeList, &[], bad.what);
                problem.part = starts.get(bad.line.saturating_sub(1)).map(|start| *start..*start + 1);
                problem
            });
            let problems = problems.collect();
            self.tell(&path, problems);
            let digest = self.digests.get(&path).cloned().unwrap_or_default();
            self.codes_digests.insert(name.clone(), digest);
            self.codes.insert(name, Arc::new(list));
        }
    }

    fn calendars_in(&mut self, folder: &Path) {
        for path in self.files_in(folder, ".toml") {
            let Some(file) = self.read::<CalendarFile>(&path, FileKind::Calendar) else { continue };
            let name = file_name(&path, ".toml");
            match Calendar::new(&name, file.years, &file.days) {
                Ok(calendar) => {
                    self.calendars.insert(name, Arc::new(calendar));
                }
                Err(bad) => {
                    let problems = bad
                        .into_iter()
                        .map(|bad| Problem::error(Code::WrongType, &["days", &bad.entry], bad.what).on_key());
                    let problems = problems.collect();
                    self.tell(&path, problems);
                }
            }
        }
    }

    fn layouts_in(&mut self, folder: &Path) {
        for path in self.files_in(folder, ".toml") {
            let name = file_name(&path, ".toml");
            let Some(file) = self.read::<LayoutFile>(&path, FileKind::Layout) else {
                self.broken_layouts.insert(name);
                continue;
            };
            let digest = self.digests.get(&path).cloned().unwrap_or_default();
            let (layout, problems) = layout::compile(&name, digest, &file);
            self.tell(&path, problems);
            match layout {
                Some(layout) => {
                    self.layouts.insert(name, Arc::new(layout));
                }
                None => {
                    self.broken_layouts.insert(name);
                }
            }
        }
    }

    fn mappings_in(&mut self, folder: &Path) {
        let mut systems: Vec<String> = std::fs::read_dir(self.folder.join(folder))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| {
                !matches!(name.as_str(), "events" | "codes" | "layouts" | "calendars")
                    && self.folder.join(folder).join(name).is_dir()
            })
            .collect();
        systems.sort();
        for system in systems {
            for path in self.files_in(&folder.join(&system), ".toml") {
                let name = path.to_string_lossy();
                if name.ends_with(CASES) {
                    let name = format!("{system}/{}", file_name(&path, CASES));
                    if let Some(cases) = self.read::<CasesFile>(&path, FileKind::Cases) {
                        self.cases.insert(name, (path, cases));
                    }
                } else {
                    let name = format!("{system}/{}", file_name(&path, ".toml"));
                    self.mapping(name, &path);
                }
            }
        }
        let orphans: Vec<(PathBuf, String)> = self
            .cases
            .iter()
            .filter(|(name, _)| !self.mappings.contains_key(*name) && !self.broken.contains(*name))
            .map(|(name, (path, _))| (path.clone(), name.clone()))
            .collect();
        for (path, name) in orphans {
            let what = format!("there is no mapping `{name}` to these cases");
            self.tell(&path, vec![Problem::error(Code::UnknownName, &[], what)]);
        }
        let without: Vec<String> = self
            .mappings
            .keys()
            .filter(|name| self.cases.get(*name).is_none_or(|(_, c)| c.cases.is_empty()))
            .cloned()
            .collect();
        for name in without {
            let path = folder.join(format!("{name}.toml"));
            let what = "nothing shows what this mapping does: it has no cases";
            let problem = Problem::error(Code::NoCases, &["fields"], what).on_key().warning();
            self.tell(
                &path,
                vec![problem.help(format!("write mappings/{name}{CASES} with a real document"))],
            );
        }
    }

    fn mapping(&mut self, name: String, path: &Path) {
        let Some(file) = self.read::<MappingFile>(path, FileKind::Mapping) else {
            self.broken.insert(name);
            return;
        };
        let Some(schema) = self.schemas.get(&file.event).cloned() else {
            let known: Vec<&str> = self.schemas.keys().map(String::as_str).collect();
            let what = format!("there is no event type `{}`", file.event);
            let problem =
                Problem::error(Code::UnknownName, &["event"], what).did_you_mean(&file.event, known);
            self.broken.insert(name);
            self.tell(path, vec![problem]);
            return;
        };
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(self.digests.get(path).map(String::as_bytes).unwrap_or_default());
        digest.update(schema.document.to_string().as_bytes());
        // Whatever a list says may decide what a mapping makes.
        self.codes_digests.values().for_each(|list| digest.update(list.as_bytes()));
        // So does the layout of its document.
        let layout = file.document.layout.as_ref().and_then(|name| self.layouts.get(name));
        digest.update(layout.map(|layout| layout.digest.as_bytes()).unwrap_or_default());
        let source = self.files.get(path).cloned();
        let line_of = |at: &[String]| source.as_ref().map_or(0, |source| source.line_of(at));
        let with = mapping::With {
            schema,
            codes: &self.codes,
            layouts: &self.layouts,
            broken_layouts: &self.broken_layouts,
            line_of: &line_of,
            digest: hex(digest.finish().as_ref()),
        };
        let (mapping, problems) = mapping::compile(&name, &file, with);
        self.tell(path, problems);
        match mapping {
            Some(mapping) => {
                self.mappings.insert(name, Arc::new(mapping));
            }
            None => {
                self.broken.insert(name);
            }
        }
    }

    fn adapters_in(&mut self, folder: &Path) {
        for path in self.files_in(folder, ".toml") {
            let name = file_name(&path, ".toml");
            let Some(file) = self.read::<AdapterFile>(&path, FileKind::Adapter) else {
                self.broken.insert(format!("adapter {name}"));
                continue;
            };
            let statements = self.statements_in(&folder.join(&name));
            let mut digest = self.adapter_digest(&path, &file);
            for statement in statements.values().flatten() {
                digest = digest_of(format!("{digest}{}", statement.digest).as_bytes());
            }
            let with = adapters::With {
                mappings: &self.mappings,
                broken: &self.broken,
                schemas: &self.schemas,
                calendars: &self.calendars,
                layouts: &self.layouts,
                broken_layouts: &self.broken_layouts,
                statements: &statements,
                digest,
            };
            let (adapter, problems) = adapters::compile(&name, &file, with);
            self.tell(&path, problems);
            match adapter {
                Some(adapter) => {
                    let used = adapter.statements();
                    let read = statements.iter().filter(|(_, statement)| statement.is_some());
                    for (file, _) in read.filter(|(file, _)| !used.contains(file.as_str())) {
                        let what = format!("no route of the adapter `{name}` uses this statement");
                        let problem = Problem::error(Code::UnusedFile, &[], what).warning();
                        self.tell(&folder.join(&name).join(file), vec![problem]);
                    }
                    self.adapters.insert(name, Arc::new(adapter));
                }
                None => {
                    self.broken.insert(format!("adapter {name}"));
                }
            }
        }
    }

    /// The digest of an adapter's file and of the layouts that its routes name.
    fn adapter_digest(&self, path: &Path, file: &AdapterFile) -> String {
        let own = self.digests.get(path).cloned().unwrap_or_default();
        let batched = file.batch.values().flat_map(|batch| batch.files.values());
        let named: BTreeSet<&String> = file
            .collect
            .values()
            .filter_map(|keys| keys.layout.as_ref())
            .chain(batched.filter_map(|keys| keys.layout.as_ref()))
            .collect();
        if named.is_empty() {
            return own;
        }
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(own.as_bytes());
        for layout in named.into_iter().filter_map(|name| self.layouts.get(name)) {
            digest.update(layout.digest.as_bytes());
        }
        hex(digest.finish().as_ref())
    }

    /// The statements in an adapter's own folder, by their files' names; one that cannot be read is told, and is `None`.
    fn statements_in(&mut self, folder: &Path) -> BTreeMap<String, Option<Arc<Statement>>> {
        let mut found = BTreeMap::new();
        for path in self.files_in(folder, ".sql") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(text) = self.text(&path) else {
                found.insert(name, None);
                continue;
            };
            let digest = self.digests.get(&path).cloned().unwrap_or_default();
            let statement = Statement::parse(&name, &digest, &text);
            self.files.insert(path.clone(), SourceFile::plain(path.clone(), text));
            let statement = match statement {
                Ok(statement) => Some(Arc::new(statement)),
                Err(bad) => {
                    let problem = Problem::error(Code::BadStatement, &[], bad.what).part(Some(bad.part));
                    self.tell(&path, vec![problem]);
                    None
                }
            };
            found.insert(name, statement);
        }
        found
    }

    fn bridge(&mut self, path: &Path, file: &BridgeFile) {
        let broken: BTreeSet<String> =
            self.broken.iter().filter_map(|name| name.strip_prefix("adapter ")).map(str::to_owned).collect();
        let with = bridge::With {
            folder: &self.folder,
            adapters: &self.adapters,
            broken: &broken,
            schemas: &self.schemas,
            calendars: &self.calendars,
        };
        let (config, mut problems) = bridge::build(file, &with);
        if let Some(config) = &config {
            problems.extend(proof::prove(config));
        }
        let fine = problems.is_empty();
        self.tell(path, problems);
        self.config = config.filter(|_| fine && !self.has_errors());
    }

    /// Mappings that no adapter uses, layouts that nothing uses.
    fn unused(&mut self) {
        if !self.broken.is_empty() || !self.broken_layouts.is_empty() {
            return;
        }
        let mut used: BTreeSet<String> = BTreeSet::new();
        let mut layouts: BTreeSet<String> = BTreeSet::new();
        for adapter in self.adapters.values() {
            used.extend(adapter.mappings().into_iter().map(|mapping| mapping.name.clone()));
            layouts
                .extend(adapter.collect.iter().filter_map(|route| Some(route.layout.as_ref()?.name.clone())));
        }
        layouts.extend(
            self.mappings.values().filter_map(|mapping| Some(mapping.style.layout.as_ref()?.name.clone())),
        );
        let unused: Vec<(String, PathBuf)> = self
            .mappings
            .keys()
            .filter(|name| !used.contains(*name))
            .filter_map(|name| {
                let ending = format!("{name}.toml");
                let path = self
                    .files
                    .keys()
                    .find(|path| path.to_string_lossy().replace('\\', "/").ends_with(&ending))?;
                Some((name.clone(), path.clone()))
            })
            .collect();
        for (name, path) in unused {
            let what = format!("no adapter uses the mapping `{name}`");
            self.tell(&path, vec![Problem::error(Code::UnusedFile, &["event"], what).on_key().warning()]);
        }
        let unused: Vec<String> =
            self.layouts.keys().filter(|name| !layouts.contains(*name)).cloned().collect();
        for name in unused {
            let ending = format!("layouts/{name}.toml");
            let path =
                self.files.keys().find(|path| path.to_string_lossy().replace('\\', "/").ends_with(&ending));
            let Some(path) = path.cloned() else { continue };
            let what = format!("neither a mapping nor an adapter uses the layout `{name}`");
            self.tell(&path, vec![Problem::error(Code::UnusedFile, &["about"], what).on_key().warning()]);
        }
    }
}

/// How the files of cases end.
pub const CASES: &str = ".cases.toml";

fn digest_of(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn file_name(path: &Path, ending: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(ending).unwrap_or(&name).to_owned()
}

impl plan::Adapter {
    /// Every mapping that some route uses.
    pub fn mappings(&self) -> Vec<Arc<Mapping>> {
        let mut found = Vec::new();
        let emits = |emits: &[plan::Emit], found: &mut Vec<Arc<Mapping>>| {
            for emit in emits {
                if let plan::EmitAction::Event(mapping) = &emit.action {
                    found.push(mapping.clone());
                }
            }
        };
        for route in &self.deliver {
            found.extend(route.mapping.clone());
            if let plan::Action::Request(request) = &route.action {
                found.extend(request.mapping.clone());
            }
            let others = [
                route.before.as_ref().map(|b| &b.request),
                route.probe.as_ref().and_then(|p| p.question.request()),
            ];
            found.extend(others.into_iter().flatten().filter_map(|request| request.mapping.clone()));
            emits(&route.reply, &mut found);
        }
        for route in &self.collect {
            emits(&route.events, &mut found);
            found.extend(route.fetch.iter().filter_map(|fetch| fetch.request.mapping.clone()));
            match &route.source {
                plan::Source::Ask(ask) => found.extend(ask.request.mapping.clone()),
                plan::Source::Poll(poll) => found.extend(poll.request.mapping.clone()),
                plan::Source::Receive(_)
                | plan::Source::Consume(_)
                | plan::Source::Pickup(_)
                | plan::Source::Query(_) => {}
            }
        }
        found
    }

    /// The files of every statement that some route uses.
    fn statements(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        for route in &self.deliver {
            if let plan::Action::Statement(write) = &route.action {
                found.insert(write.statement.file.as_str());
            }
            if let Some(plan::Question::Statement(statement)) =
                route.probe.as_ref().map(|probe| &probe.question)
            {
                found.insert(statement.file.as_str());
            }
        }
        for route in &self.collect {
            if let plan::Source::Query(query) = &route.source {
                found.insert(query.statement.file.as_str());
            }
        }
        found
    }
}
