//! `packhorse new`: reads the sample, writes the draft, says what to look at.

use super::{exit, render};
use crate::{
    code::Code,
    config::Project,
    draft::{self, Kind, NewFile, Place},
    problem::closest,
};
use clap::{Args, ValueHint};
use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Write a first adapter, mapping and case from a sample.
#[derive(Debug, Args)]
pub struct New {
    /// The adapter's name: small letters, digits and hyphens.
    name: String,
    /// A real file as the system writes it, small, with personal data replaced: `.csv`, `.xml`,
    /// `.json`; or the `CREATE TABLE` of a table: `.sql`.
    #[arg(long, value_name = "SAMPLE", value_hint = ValueHint::FilePath)]
    from: PathBuf,
    /// The type of the event that its records are to become: `reconciliation.line.v1`.
    #[arg(long, value_name = "TYPE")]
    event: String,
    /// The folder with `adapters/` and `mappings/`. Default: the one in which `packhorse.toml` stands.
    #[arg(long, value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

/// How large a sample may be: it is for looking at.
const MOST: u64 = 8 << 20;

impl New {
    /// Runs it.
    pub fn run(&self, config: &Path) -> u8 {
        match self.write(config) {
            Ok(()) => 0,
            Err(code) => code,
        }
    }

    fn write(&self, config: &Path) -> Result<(), u8> {
        let settings = match &self.folder {
            Some(folder) => folder.join("packhorse.toml"),
            None => config.to_owned(),
        };
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase()) || !self.name.chars().all(fine) {
            let what =
                format!("`{}` is no name for an adapter: small letters, digits and hyphens", self.name);
            super::complain(Code::UnknownName, &what);
            return Err(2);
        }
        let project = Project::load(&settings);
        let Some(schema) = project.schemas.get(&self.event) else {
            self.unknown_event(&project);
            return Err(exit::CONFIG);
        };
        let example = project.examples.get(&self.event).cloned().unwrap_or_default();
        let (kind, bytes) = self.sample()?;
        let file = self.from.file_name().unwrap_or_default().to_string_lossy();
        let from =
            draft::From { name: &self.name, file: &file, kind, bytes: &bytes, schema, example: &example };
        let draft = draft::draft(from).map_err(|refused| {
            super::complain(refused.code, &format!("{}: {}", self.from.display(), refused.what));
            exit::DATA
        })?;
        let files: Vec<(PathBuf, &NewFile)> =
            draft.files.iter().map(|file| (place(&project, file), file)).collect();
        let taken: Vec<String> = files
            .iter()
            .filter(|(path, _)| project.folder.join(path).exists())
            .map(|(path, _)| path.display().to_string())
            .collect();
        if !taken.is_empty() {
            super::complain(
                Code::NameTaken,
                &format!("there is already {}; nothing was written", taken.join(", ")),
            );
            return Err(exit::STORE);
        }
        for (path, file) in &files {
            if let Err(error) = create(&project.folder.join(path), &file.text) {
                super::complain(
                    Code::CannotReadFile,
                    &format!("{} cannot be written: {error}", path.display()),
                );
                return Err(exit::STORE);
            }
            println!("wrote {}", path.display());
        }
        println!("\nLook at:");
        draft.look.iter().for_each(|look| println!("- {look}"));
        println!("\nThen: packhorse check, packhorse test {}", self.name);
        Ok(())
    }

    fn unknown_event(&self, project: &Project) {
        let known = project.schemas.keys().map(String::as_str);
        let help = match closest(&self.event, known) {
            Some(close) => format!("; did you mean `{close}`?"),
            None if project.schemas.is_empty() => {
                format!(
                    ": {} has no event schemas",
                    project.folder.join(&project.mappings_folder).join("events").display()
                )
            }
            None => String::new(),
        };
        if project.schemas.is_empty() && project.has_errors() {
            anstream::eprint!("{}", render::diagnostics(project, render::Show::Errors));
        }
        super::complain(Code::UnknownName, &format!("there is no event type `{}`{help}", self.event));
    }

    fn sample(&self) -> Result<(Kind, Vec<u8>), u8> {
        let complain = |code, what: String| {
            super::complain(code, &what);
            exit::DATA
        };
        let Some(kind) = Kind::of(&self.from.to_string_lossy()) else {
            let what = format!(
                "{} ends in none of .csv, .tsv, .txt, .xml, .json, .jsonl, .sql",
                self.from.display()
            );
            return Err(complain(Code::NotASample, what));
        };
        let unreadable = |error| {
            complain(Code::CannotReadFile, format!("{} cannot be read: {error}", self.from.display()))
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.from).map_err(unreadable)?;
        file.take(MOST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MOST {
            let what = format!("{} is larger than 8 MiB: some records are enough", self.from.display());
            return Err(complain(Code::NotASample, what));
        }
        Ok((kind, bytes))
    }
}

/// Where a file goes, below the project's folder.
fn place(project: &Project, file: &NewFile) -> PathBuf {
    match file.place {
        Place::Adapters => project.adapters_folder.join(&file.path),
        Place::Mappings => project.mappings_folder.join(&file.path),
    }
}

/// Writes a file that is not there yet.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
