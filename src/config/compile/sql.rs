//! Compiling what an adapter says of a database: how it is reached, and the statements with everything they need.

use super::*;
use crate::{
    config::raw::sql::{CursorKind, DatabaseKind, Overlap, QueryKeys, SqlKeys, StatementKeys},
    mapping::Field,
};

/// The name of the parameter that a cursor's value is given to.
pub const CURSOR: &str = "cursor";

impl Compiler<'_> {
    pub(super) fn sql(&mut self, keys: &SqlKeys) -> Option<Sql> {
        let at = ["sql".to_owned()];
        if let Some(password) = &keys.password {
            self.secret(password, &under(&at, &["password"]));
        }
        let database = match keys.database {
            DatabaseKind::Postgres => {
                self.postgres(keys, &at).map(|postgres| Database::Postgres(Box::new(postgres)))
            }
            DatabaseKind::Odbc => self.odbc(keys, &at),
        };
        Some(Sql {
            database: database?,
            write: keys.write,
            connect_timeout: self.duration(&keys.connect_timeout, "5s", &under(&at, &["connect_timeout"])),
            timeout: self.duration(&keys.timeout, "60s", &under(&at, &["timeout"])),
            lock_timeout: self.duration(&keys.lock_timeout, "10s", &under(&at, &["lock_timeout"])),
            row_limit: self.size(&keys.row_limit, 1 << 20, &under(&at, &["row_limit"])),
        })
    }
    fn postgres(&mut self, keys: &SqlKeys, at: At<'_>) -> Option<Postgres> {
        if keys.connection.is_some() {
            let what = "`connection` is for ODBC; PostgreSQL has `address`, `name` and `username`";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "connection", what).on_key());
        }
        if let Some(setting) = &keys.allow_unencrypted_login {
            self.setting(setting, &under(at, &["allow_unencrypted_login"]));
        }
        let address = self.wanted(&keys.address, "address", at);
        let name = self.wanted(&keys.name, "name", at);
        let username =
            keys.username.as_ref().and_then(|u| self.template(u, Escape::None, &under(at, &["username"])));
        Some(Postgres {
            address: address?,
            name: name?,
            username,
            password: keys.password.clone(),
            tls: keys.tls.as_ref().map(|tls| self.tls(tls, &under(at, &["tls"]))),
            allow_unencrypted_login: keys.allow_unencrypted_login.clone(),
        })
    }
    fn odbc(&mut self, keys: &SqlKeys, at: At<'_>) -> Option<Database> {
        let misplaced = [
            ("address", keys.address.is_some()),
            ("name", keys.name.is_some()),
            ("username", keys.username.is_some()),
            ("tls", keys.tls.is_some()),
            ("allow_unencrypted_login", keys.allow_unencrypted_login.is_some()),
        ];
        for (key, _) in misplaced.iter().filter(|(_, given)| *given) {
            let what = format!("`{key}` is for PostgreSQL; an ODBC driver is told all by its `connection`");
            self.problem(Problem::under(Code::ExclusiveKeys, at, key, what).on_key());
        }
        let connection = self.wanted(&keys.connection, "connection", at)?;
        Some(Database::Odbc { connection, password: keys.password.clone() })
    }
    fn wanted(&mut self, text: &Option<String>, key: &str, at: At<'_>) -> Option<Template> {
        match text {
            Some(text) => self.template(text, Escape::None, &under(at, &[key])),
            None => {
                let what = format!("`{key}` is missing: nothing says where the database is");
                self.problem(Problem::under(Code::MissingKey, at, "", what).on_key());
                None
            }
        }
    }
    /// A statement by its file's name.
    fn statement(&mut self, file: &str, at: At<'_>) -> Option<Arc<Statement>> {
        if self.kind() != SystemPlanKind::Sql {
            let what = "a statement is for a database, and this system is none";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "", what));
        }
        let Some(statement) = self.with.statements.get(file) else {
            let known: Vec<&str> = self.with.statements.keys().map(String::as_str).collect();
            let what = format!("there is no statement `{file}` in the adapter's folder");
            self.problem(Problem::under(Code::UnknownName, at, "", what).did_you_mean(file, known));
            return None;
        };
        let statement = statement.clone()?;
        let odbc = self.file.sql.as_ref().is_some_and(|sql| sql.database == DatabaseKind::Odbc);
        if odbc && statement.question_mark.is_some() {
            let what = format!("`{file}` has a `?` outside of quotes: parameters are written `:name`");
            self.problem(Problem::under(Code::BadStatement, at, "", what));
        }
        Some(statement)
    }
    /// A statement that reads.
    fn reading(&mut self, file: &str, at: At<'_>) -> Option<Arc<Statement>> {
        let statement = self.statement(file, at)?;
        // Others may begin a query as well (`EXEC` in SQL Server): the database is told not to write, whatever it is.
        const WRITING: [&str; 10] =
            ["INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "DROP", "CREATE", "ALTER", "GRANT", "COPY"];
        if WRITING.contains(&statement.verb.as_str()) {
            let what = format!("`{file}` begins with {}: a query reads", statement.verb);
            self.problem(Problem::under(Code::ReadOnly, at, "", what));
        }
        Some(statement)
    }
    pub(super) fn query(&mut self, keys: &QueryKeys, route: &CollectKeys, at: At<'_>) -> Option<Source> {
        let format_at = at;
        let at = &under(at, &["query"]);
        if route.format != Format::Json {
            let what = "each row of a query becomes a JSON document: say `format = \"json\"`";
            self.problem(Problem::under(Code::ExclusiveKeys, format_at, "format", what));
        }
        if !route.fetch.is_empty() {
            let what = "a query's rows are the truth themselves: nothing is fetched";
            self.problem(Problem::under(Code::ExclusiveKeys, format_at, "fetch", what).on_key());
        }
        let every = self.duration(&Some(keys.every.clone()), "1m", &under(at, &["every"]));
        let statement = self.reading(&keys.statement, &under(at, &["statement"]));
        let parameters = self.templates(&keys.parameters, Escape::None, &under(at, &["parameters"]));
        let cursor = keys.cursor.as_ref().map(|cursor| {
            let at = &under(at, &["cursor"]);
            let overlap = match (&cursor.overlap, cursor.kind) {
                (None, _) => Back::None,
                (Some(Overlap::Number(number)), CursorKind::Number) => Back::Number(*number),
                (Some(Overlap::Time(text)), CursorKind::Time) => {
                    Back::Time(self.duration(&Some(text.clone()), "0s", &under(at, &["overlap"])))
                }
                (Some(_), CursorKind::Number | CursorKind::Time) => {
                    let what = "the overlap of a cursor of numbers is a number, of times a duration: `10m`";
                    self.problem(Problem::under(Code::WrongType, at, "overlap", what));
                    Back::None
                }
                (Some(_), CursorKind::Text) => {
                    let what = "a cursor of texts cannot reach back: nobody can count with texts";
                    self.problem(Problem::under(Code::ExclusiveKeys, at, "overlap", what).on_key());
                    Back::None
                }
            };
            let (column, first, kind) = (cursor.column.clone(), cursor.first.clone(), cursor.kind);
            QueryCursor { column, first, overlap, kind }
        });
        // A whole view is written to the disk and not held in memory.
        let usual = if route.compare.is_some() { 10_000_000 } else { 100_000 };
        let limit = keys.limit.unwrap_or(usual).max(1);
        if let (Some(_), Some(_)) = (&route.compare, &keys.cursor) {
            let what = "`cursor` and `compare` exclude each other: a view is looked at from its cursor on, or as a whole";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "cursor", what).on_key());
        }
        let statement = statement?;
        let names = statement.parameters();
        for name in &names {
            let given = keys.parameters.contains_key(*name) || *name == CURSOR && keys.cursor.is_some();
            if !given {
                let what = format!("`{}` has a parameter `:{name}`, which nothing gives", statement.file);
                let problem = Problem::under(Code::ParameterMissing, at, "statement", what);
                let known = keys.parameters.keys().map(String::as_str).chain([CURSOR]);
                self.problem(
                    problem
                        .did_you_mean(name, known)
                        .help("`:cursor` is given by `cursor`, every other by `parameters`"),
                );
            }
        }
        for name in keys.parameters.keys().filter(|name| !names.contains(&name.as_str())) {
            let what = format!("`{}` has no parameter `:{name}`", statement.file);
            let at = under(at, &["parameters"]);
            self.problem(Problem::under(Code::ValueUnused, &at, name, what).on_key());
        }
        if let Some(cursor) = &cursor {
            self.safe(cursor, &statement, route, format_at);
        }
        Some(Source::Query(Query { statement, every, cursor, parameters, limit }))
    }
    /// Whether a query with a cursor could pass rows over.
    fn safe(&mut self, cursor: &QueryCursor, statement: &Statement, route: &CollectKeys, at: At<'_>) {
        let query = under(at, &["query"]);
        if !statement.parameters().contains(&CURSOR) {
            let what = format!("`{}` never asks for `:{CURSOR}`: the cursor has no effect", statement.file);
            self.problem(Problem::under(Code::ValueUnused, &query, CURSOR, what).on_key());
        }
        if !statement.ordered {
            let what =
                format!("`{}` is not ordered: a look that is cut short would pass rows over", statement.file);
            let help = format!("end it with `ORDER BY {}`", cursor.column);
            self.problem(Problem::under(Code::CursorUnsafe, &query, "statement", what).help(help));
        }
        // A changed row has its old key and a new moment.
        let key = route.key.as_ref().filter(|key| !key.contains(&cursor.column));
        if let (Some(key), CursorKind::Time) = (key, cursor.kind) {
            let what = format!(
                "a row that changes again would be taken for known: its key does not hold `{}`",
                cursor.column
            );
            let help = format!(
                "key = \"{key}/{{{{ document.{} }}}}\"; or no `key`: then the whole row counts",
                cursor.column
            );
            self.problem(Problem::under(Code::CursorUnsafe, at, "key", what).help(help).warning());
        }
    }
    /// A statement that writes.
    pub(super) fn write(
        &mut self,
        keys: &StatementKeys,
        route: &DeliverKeys,
        mapping: Option<&Arc<Mapping>>,
        at: At<'_>,
    ) -> Option<Write> {
        let route_at = at;
        let at = &under(at, &["statement"]);
        let others = [
            ("before", route.before.is_some()),
            ("answers", !route.answers.is_empty()),
            ("answer_format", route.answer_format.is_some_and(|format| format != Format::Json)),
        ];
        for (key, _) in others.iter().filter(|(_, given)| *given) {
            let what =
                format!("`{key}` is for routes that send a `request`; a statement answers with its rows");
            self.problem(Problem::under(Code::ExclusiveKeys, route_at, key, what).on_key());
        }
        if self.file.sql.as_ref().is_some_and(|sql| !sql.write) {
            let what = "this route writes, and the adapter only reads";
            self.problem(
                Problem::under(Code::ReadOnly, at, "", what).on_key().help("say so in [sql]: write = true"),
            );
        }
        if keys.duplicate == crate::config::raw::sql::DuplicateIs::Dead && !keys.constraints.is_empty() {
            let what = "`constraints` says by which constraint a row is known to be there: with `duplicate = \"delivered\"`";
            self.problem(Problem::under(Code::ExclusiveKeys, at, "constraints", what).on_key());
        }
        let statement = self.statement(&keys.file, &under(at, &["file"]));
        let Some(mapping) = mapping else {
            if route.mapping.is_none() {
                let what =
                    "a statement's parameters are the fields of a document: the route has no `mapping`";
                self.problem(Problem::under(Code::MissingKey, route_at, "", what).on_key());
            }
            return None;
        };
        let statement = statement?;
        let fields = self.flat(mapping, &under(route_at, &["mapping"]));
        self.given(&statement, &fields, mapping, &under(at, &["file"]));
        let probe = route.probe.as_ref().and_then(|probe| probe.statement.as_ref());
        let probe = probe.and_then(|file| self.with.statements.get(file)?.clone());
        for field in &fields {
            let taken = statement.parameters().contains(&field.as_str())
                || probe.as_ref().is_some_and(|probe| probe.parameters().contains(&field.as_str()));
            if !taken {
                let what = format!(
                    "the mapping `{}` makes `{field}`, which no parameter of `{}` takes",
                    mapping.name, keys.file
                );
                self.problem(Problem::under(Code::ValueUnused, at, "file", what));
            }
        }
        Some(Write {
            statement,
            expect_rows: keys.expect_rows,
            duplicate: keys.duplicate,
            constraints: keys.constraints.clone(),
        })
    }
    /// The fields of a mapping's documents, which are plain names.
    fn flat(&mut self, mapping: &Mapping, at: At<'_>) -> Vec<String> {
        let mut fields = Vec::new();
        if mapping.format != Format::Json {
            let what = format!(
                "a statement takes the fields of a JSON document; the mapping `{}` makes another",
                mapping.name
            );
            self.problem(Problem::under(Code::WrongMapping, at, "", what));
        }
        for Field { name, plain, .. } in mapping.document_fields(Direction::ToDocument) {
            if !plain {
                let what = format!(
                    "`{name}` is no plain field: a statement's parameters have names without `/` and lists"
                );
                self.problem(Problem::under(Code::WrongMapping, at, "", what));
            }
            fields.push(name);
        }
        fields
    }
    /// Every parameter of a statement is a field of the document.
    fn given(&mut self, statement: &Statement, fields: &[String], mapping: &Mapping, at: At<'_>) {
        for name in statement.parameters() {
            if !fields.iter().any(|field| field == name) {
                let what = format!(
                    "`{}` has a parameter `:{name}`, which the mapping `{}` does not make",
                    statement.file, mapping.name
                );
                let known = fields.iter().map(String::as_str);
                self.problem(Problem::under(Code::ParameterMissing, at, "", what).did_you_mean(name, known));
            }
        }
    }
    /// A probe that is a query.
    pub(super) fn query_question(
        &mut self,
        file: &str,
        keys: &ProbeKeys,
        at: At<'_>,
        mapping: Option<&Arc<Mapping>>,
    ) -> Option<Question> {
        if !keys.answers.is_empty() || keys.format.is_some() {
            let key = if keys.format.is_some() { "format" } else { "answers" };
            let what =
                format!("`{key}` is for a probe that sends a `request`: a row of the query means delivered");
            self.problem(Problem::under(Code::ExclusiveKeys, at, key, what).on_key());
        }
        let at = under(at, &["statement"]);
        let statement = self.reading(file, &at)?;
        if let Some(mapping) = mapping {
            let fields: Vec<String> =
                mapping.document_fields(Direction::ToDocument).into_iter().map(|field| field.name).collect();
            self.given(&statement, &fields, mapping, &at);
        }
        Some(Question::Statement(statement))
    }
}
