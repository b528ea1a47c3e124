//! Diagnostics as rustc prints them, and as JSON, one object a line.

use crate::{
    config::{Project, source::Diagnostic},
    problem::Severity,
};
use annotate_snippets::{AnnotationKind, Group, Level, Patch, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

/// Which diagnostics to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// All.
    All,
    /// Only those that keep `run` from starting.
    Errors,
}

/// All diagnostics of a project, with a line that counts them.
pub fn diagnostics(project: &Project, show: Show) -> String {
    let shown: Vec<&Diagnostic> =
        project.diagnostics.iter().filter(|diagnostic| show == Show::All || diagnostic.is_error()).collect();
    let mut out = String::new();
    for diagnostic in &shown {
        out.push_str(&one(project, diagnostic));
        out.push_str("\n\n");
    }
    let errors = shown.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = shown.len() - errors;
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    out.push_str(&format!("{}, {}\n", count(errors, "error"), count(warnings, "warning")));
    out
}

fn one(project: &Project, diagnostic: &Diagnostic) -> String {
    let problem = &diagnostic.problem;
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let path = diagnostic.path.to_string_lossy();
    let text = project.files.get(&diagnostic.path).map(|file| normalize(&file.text)).unwrap_or_default();
    let what = normalize_untrusted_str(&problem.what);
    let label = normalize_untrusted_str(&problem.label);
    let mut report: Vec<Group<'_>> = Vec::new();
    let span = fit(&text, diagnostic.span.clone());
    let annotation = AnnotationKind::Primary.span(span.clone());
    let annotation = if label.is_empty() { annotation } else { annotation.label(&*label) };
    let title = level.primary_title(&*what).id(problem.code.as_str());
    let help = problem.help.as_deref().map(normalize_untrusted_str);
    let snippet = Snippet::source(&*text).line_start(1).path(&*path).annotation(annotation);
    let mut group = title.element(snippet);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(&**help));
    }
    report.push(group);
    if let Some(instead) = &problem.instead {
        let written = text.get(span.clone()).unwrap_or_default();
        let quoted = written.starts_with('"') && written.ends_with('"') && written.len() > 1;
        let replacement = if quoted { format!("\"{instead}\"") } else { instead.clone() };
        report.push(Level::HELP.secondary_title("did you mean").element(
            Snippet::source(&*text).line_start(1).path(&*path).patch(Patch::new(span, replacement)),
        ));
    }
    Renderer::styled().render(&report)
}

/// Control characters, which could drive a terminal, made visible without moving a byte of the text.
fn normalize(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') && c.len_utf8() == 1 { '?' } else { c })
        .collect()
}

fn fit(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let end = span.end.min(text.len());
    let start = span.start.min(end);
    match text.is_char_boundary(start) && text.is_char_boundary(end) {
        true => start..end,
        false => 0..0,
    }
}

/// Diagnostics as JSON.
pub fn json_lines(project: &Project) -> Vec<Value> {
    project
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let problem = &diagnostic.problem;
            json!({
                "schema": "packhorse.diagnostic/v1",
                "severity": if diagnostic.is_error() { "error" } else { "warning" },
                "code": problem.code.as_str(),
                "file": diagnostic.path.to_string_lossy(),
                "line": diagnostic.line,
                "column": diagnostic.column,
                "span": [diagnostic.span.start, diagnostic.span.end],
                "message": problem.what,
                "label": problem.label,
                "help": problem.help,
                "instead": problem.instead,
            })
        })
        .collect()
}
