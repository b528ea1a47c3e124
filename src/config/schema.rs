//! JSON Schemas of the kinds of files, made from the types they are read into; and the check of a file against
//! its schema, which finds every unknown key, missing key and wrong type at once.

use super::{
    raw::{
        adapter::AdapterFile, batch::CalendarFile, bridge::BridgeFile, layout::LayoutFile,
        mapping::CasesFile, mapping::MappingFile,
    },
    source::SourceFile,
};
use crate::{code::Code, problem::Problem};
use jsonschema::{
    ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;
use std::sync::OnceLock;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `packhorse.toml`
    Bridge,
    /// `adapters/*.toml`
    Adapter,
    /// `mappings/*/*.toml`
    Mapping,
    /// `mappings/*/*.cases.toml`
    Cases,
    /// `mappings/calendars/*.toml`
    Calendar,
    /// `mappings/layouts/*.toml`
    Layout,
}

impl FileKind {
    /// All of them, with the names of their schemas.
    pub const ALL: [(FileKind, &str); 6] = [
        (FileKind::Bridge, "packhorse"),
        (FileKind::Adapter, "adapter"),
        (FileKind::Mapping, "mapping"),
        (FileKind::Cases, "cases"),
        (FileKind::Calendar, "calendar"),
        (FileKind::Layout, "layout"),
    ];

    /// Its JSON Schema, for editors and for the check.
    pub fn schema(self) -> Value {
        match self {
            FileKind::Bridge => schema_of::<BridgeFile>("packhorse"),
            FileKind::Adapter => schema_of::<AdapterFile>("adapter"),
            FileKind::Mapping => schema_of::<MappingFile>("mapping"),
            FileKind::Cases => schema_of::<CasesFile>("cases"),
            FileKind::Calendar => schema_of::<CalendarFile>("calendar"),
            FileKind::Layout => schema_of::<LayoutFile>("layout"),
        }
    }

    fn compiled(self) -> &'static (Value, Option<Validator>) {
        static COMPILED: [OnceLock<(Value, Option<Validator>)>; 6] = [const { OnceLock::new() }; 6];
        let [bridge, adapter, mapping, cases, calendar, layout] = &COMPILED;
        let slot = match self {
            FileKind::Bridge => bridge,
            FileKind::Adapter => adapter,
            FileKind::Mapping => mapping,
            FileKind::Cases => cases,
            FileKind::Calendar => calendar,
            FileKind::Layout => layout,
        };
        slot.get_or_init(|| {
            let schema = self.schema();
            let validator = jsonschema::draft202012::options().build(&schema).ok();
            (schema, validator)
        })
    }

    /// Everything in a file that its schema does not allow.
    pub fn check(self, file: &SourceFile) -> Vec<Problem> {
        let (schema, validator) = self.compiled();
        let Some(validator) = validator else { return Vec::new() };
        let mut problems = Vec::new();
        for error in validator.iter_errors(&file.value) {
            explain(schema, &error, &mut problems);
        }
        problems
    }
}

fn schema_of<T: JsonSchema>(name: &str) -> Value {
    let generator: SchemaGenerator = SchemaSettings::draft2020_12().into();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    if let Value::Object(object) = &mut schema {
        object.insert(
            "$id".to_owned(),
            Value::from(format!("https://packhorse.example/schemas/{name}.schema.json")),
        );
    }
    schema
}

/// TOML has no null: an optional key is left out. Takes the null that serde's options bring out of the schema again.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type") != Some(&Value::from("null")));
                if let [Value::Object(only)] = branches.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The part of a schema that is about the place behind these keys.
fn schema_at<'s>(root: &'s Value, keys: &[String]) -> Option<&'s Value> {
    let resolve = |schema: &'s Value| match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')),
        None => Some(schema),
    };
    keys.iter().try_fold(resolve(root)?, |schema, key| {
        let next = schema
            .get("properties")
            .and_then(|properties| properties.get(key))
            .or_else(|| schema.get("items").filter(|_| key.parse::<usize>().is_ok()))
            .or_else(|| schema.get("additionalProperties"))?;
        resolve(next)
    })
}

fn explain(schema: &Value, error: &ValidationError<'_>, problems: &mut Vec<Problem>) {
    let at: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|key| key.replace("~1", "/").replace("~0", "~"))
        .collect();
    let here = schema_at(schema, &at);
    let properties = || -> Vec<&str> {
        let keys = here.and_then(|here| here.get("properties")).and_then(Value::as_object);
        keys.map(|keys| keys.keys().map(String::as_str).collect()).unwrap_or_default()
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            for key in unexpected {
                let problem =
                    Problem::under(Code::UnknownKey, &at, key, format!("there is no key `{key}` here"))
                        .on_key()
                        .label("unknown key")
                        .did_you_mean(key, properties());
                problems.push(problem);
            }
        }
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let about = here
                .and_then(|here| here.get("properties")?.get(key)?.get("description")?.as_str())
                .map(|text| text.split(". ").next().unwrap_or(text).trim_end_matches('.').replace('\n', " "));
            let mut problem =
                Problem::under(Code::MissingKey, &at, "", format!("the key `{key}` is missing"))
                    .on_key()
                    .label(format!("needs `{key}`"));
            problem.help = about.map(|about| format!("`{key}`: {about}"));
            problems.push(problem);
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(kind) => in_words(&kind.to_string()).to_owned(),
                TypeKind::Multiple(kinds) => kinds
                    .iter()
                    .map(|kind| in_words(&kind.to_string()).to_owned())
                    .collect::<Vec<_>>()
                    .join(" or "),
            };
            let found = match error.instance().as_ref() {
                Value::String(_) => "text",
                Value::Number(_) => "a number",
                Value::Bool(_) => "true or false",
                Value::Array(_) => "a list",
                Value::Object(_) => "a table",
                Value::Null => "a value that cannot be read",
            };
            problems.push(
                Problem::under(Code::WrongType, &at, "", format!("{found} stands where {wanted} is wanted"))
                    .label(format!("{wanted} is wanted")),
            );
        }
        ValidationErrorKind::Enum { options } => one_of(&at, error, options.as_array(), problems),
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            // The words of an enumeration come as branches with one constant each.
            let words: Vec<Value> = here
                .and_then(|here| here.get("oneOf").or_else(|| here.get("anyOf")))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|branch| branch.get("const").cloned())
                .collect();
            match words.is_empty() {
                false => one_of(&at, error, Some(&words), problems),
                true => context.iter().take(1).flatten().for_each(|inner| explain(schema, inner, problems)),
            }
        }
        _ => problems.push(Problem::under(
            Code::WrongType,
            &at,
            "",
            error.masked_with("the value").to_string(),
        )),
    }
}

fn one_of(
    at: &[String],
    error: &ValidationError<'_>,
    options: Option<&Vec<Value>>,
    problems: &mut Vec<Problem>,
) {
    let words: Vec<&str> = options.into_iter().flatten().filter_map(Value::as_str).collect();
    let instance = error.instance();
    let written = instance.as_str().unwrap_or_default();
    problems.push(
        Problem::under(
            Code::UnknownName,
            at,
            "",
            format!("`{written}` is not one of the words for this key"),
        )
        .label("unknown word")
        .did_you_mean(written, words),
    );
}

fn in_words(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a table",
        other => other,
    }
}
