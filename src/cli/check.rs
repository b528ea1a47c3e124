//! `packhorse check`.

use super::{doctor, exit, render};
use crate::{
    code::Code,
    config::{Project, source::Diagnostic},
    mapping::cases,
    problem::Problem,
};
use clap::Args;
use std::path::Path;

/// Find every problem.
#[derive(Debug, Args)]
pub struct Check {
    /// Print one JSON object a line instead of text.
    #[arg(long)]
    json: bool,
    /// Also try the broker, the systems, certificates and clocks.
    #[arg(long)]
    live: bool,
}

impl Check {
    /// Runs it.
    pub fn run(&self, config: &Path) -> u8 {
        if !config.exists() && !config.parent().unwrap_or(Path::new("")).join("mappings").exists() {
            super::complain(
                crate::code::Code::CannotReadFile,
                &format!("{} does not exist, and there is no folder `mappings` beside it", config.display()),
            );
            return exit::CONFIG;
        }
        let mut project = Project::load(config);
        let found = cases(&project);
        project.diagnostics.extend(found);
        if self.json {
            render::json_lines(&project).iter().for_each(|line| println!("{line}"));
        } else {
            anstream::print!("{}", render::diagnostics(&project, render::Show::All));
        }
        if project.has_errors() {
            return exit::FOUND;
        }
        match (self.live, &project.config) {
            (true, Some(config)) => doctor::examine(config, self.json),
            _ => 0,
        }
    }
}

/// Cases that do not come out, as problems at their place.
pub fn cases(project: &Project) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (name, (path, file)) in &project.cases {
        let (Some(mapping), Some(source)) = (project.mappings.get(name), project.files.get(path)) else {
            continue;
        };
        for (index, case) in file.cases.iter().enumerate() {
            let at = ["case".to_owned(), index.to_string()];
            let mut tell = |code: Code, what: String| {
                let problem = Problem::under(code, &at, "name", what).label("this case");
                found.push(Diagnostic::new(source, problem));
            };
            match texts(project, path, case) {
                Err(what) => tell(Code::CaseFailed, what),
                Ok(texts) => cases::run(mapping, case, &texts).into_iter().for_each(|outcome| {
                    if let Some(wrong) = outcome.wrong {
                        let law = outcome.what.starts_with("law");
                        let code = if law { Code::LawBroken } else { Code::CaseFailed };
                        tell(code, format!("{}: {wrong}", outcome.what));
                    }
                }),
            }
        }
    }
    found
}

/// The texts of a case, with its files read.
pub fn texts(
    project: &Project,
    path: &Path,
    case: &crate::mapping::raw::CaseKeys,
) -> Result<cases::Texts, String> {
    let folder = project.folder.join(path.parent().unwrap_or(Path::new("")));
    let read = |text: &Option<String>, file: &Option<String>| match (text, file) {
        (Some(text), _) => Ok(Some(text.clone())),
        (None, Some(file)) => std::fs::read_to_string(folder.join(file))
            .map(Some)
            .map_err(|error| format!("the case's file {file} cannot be read: {error}")),
        (None, None) => Ok(None),
    };
    Ok(cases::Texts {
        event: read(&case.event, &case.event_file)?,
        document: read(&case.document, &case.document_file)?,
    })
}
