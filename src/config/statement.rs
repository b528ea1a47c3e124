//! One SQL statement from a file, with its parameters `:name` found. Values are never pasted into it: a database is given `$1`
//! or `?` in their places, and the values beside it.
//!
//! It is no parser: it knows only what hides a colon or a semicolon, which is quotes, comments, casts and dollar quotes.

use std::ops::Range;

/// A statement, cut at its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The file's name.
    pub file: String,
    /// The digest of the file.
    pub digest: String,
    pieces: Vec<Piece>,
    /// Its first word, in capitals: `SELECT`.
    pub verb: String,
    /// Whether the words `ORDER BY` stand in it.
    pub ordered: bool,
    /// The place of a `?` outside of quotes, which ODBC would take for a parameter.
    pub question_mark: Option<Range<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Sql(String),
    Parameter(String),
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadStatement {
    /// What is wrong.
    pub what: String,
    /// Where.
    pub part: Range<usize>,
}

impl Statement {
    /// Reads a file.
    ///
    /// # Errors
    /// It is empty, or more than one statement, or something in it is not closed.
    pub fn parse(file: &str, digest: &str, text: &str) -> Result<Statement, BadStatement> {
        let mut cut =
            Cut { text, at: 0, pieces: Vec::new(), from: 0, words: Vec::new(), question_mark: None };
        let end = cut.run()?;
        let (pieces, words, question_mark) = (cut.pieces, cut.words, cut.question_mark);
        let Some(verb) = words.first().cloned() else {
            return Err(BadStatement {
                what: "there is no statement in this file".to_owned(),
                part: 0..end.min(1),
            });
        };
        let ordered = words.windows(2).any(|pair| matches!(pair, [a, b] if a == "ORDER" && b == "BY"));
        Ok(Statement {
            file: file.to_owned(),
            digest: digest.to_owned(),
            pieces,
            verb,
            ordered,
            question_mark,
        })
    }

    /// The names of its parameters, each once, in the order in which they first occur.
    pub fn parameters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for piece in &self.pieces {
            if let Piece::Parameter(name) = piece
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        names
    }

    /// As PostgreSQL wants it: `$1`, and the names in that order.
    pub fn numbered(&self) -> (String, Vec<&str>) {
        let names = self.parameters();
        let mut sql = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Sql(text) => sql.push_str(text),
                Piece::Parameter(name) => {
                    let number = names.iter().position(|known| known == name).map_or(0, |at| at + 1);
                    sql.push_str(&format!("${number}"));
                }
            }
        }
        (sql, names)
    }

    /// As ODBC wants it: `?`, and the name for each of them.
    pub fn marked(&self) -> (String, Vec<&str>) {
        let (mut sql, mut names) = (String::new(), Vec::new());
        for piece in &self.pieces {
            match piece {
                Piece::Sql(text) => sql.push_str(text),
                Piece::Parameter(name) => {
                    sql.push('?');
                    names.push(name.as_str());
                }
            }
        }
        (sql, names)
    }
}

struct Cut<'t> {
    text: &'t str,
    at: usize,
    pieces: Vec<Piece>,
    from: usize,
    words: Vec<String>,
    question_mark: Option<Range<usize>>,
}

impl Cut<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn before(&self) -> Option<char> {
        self.text.get(..self.at).and_then(|text| text.chars().next_back())
    }

    fn sql_until(&mut self, end: usize) {
        let text = self.text.get(self.from..end).unwrap_or_default();
        if !text.is_empty() {
            self.pieces.push(Piece::Sql(text.to_owned()));
        }
    }

    /// Behind the next occurrence of a mark, or an error about what began at `start`.
    fn skip_past(&mut self, mark: &str, start: usize, what: &str) -> Result<(), BadStatement> {
        match self.rest().find(mark) {
            Some(found) => {
                self.at += found + mark.len();
                Ok(())
            }
            None => Err(BadStatement { what: format!("{what} is not closed"), part: start..start + 1 }),
        }
    }

    /// Goes through the text; gives where the statement ends.
    fn run(&mut self) -> Result<usize, BadStatement> {
        let mut end = None;
        while let Some(c) = self.next() {
            let start = self.at;
            let comment = self.rest().starts_with("--") || self.rest().starts_with("/*");
            if end.is_some() && !c.is_whitespace() && !comment && c != ';' {
                let what = "more than one statement: a file holds exactly one".to_owned();
                return Err(BadStatement { what, part: start..start + c.len_utf8() });
            }
            match c {
                '\'' => {
                    let escapes = matches!(self.before(), Some('e' | 'E')) && !self.word_before(start, 2);
                    self.at += 1;
                    self.quoted('\'', start, escapes)?;
                }
                '"' | '`' => {
                    self.at += 1;
                    self.quoted(c, start, false)?;
                }
                '-' if self.rest().starts_with("--") => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                }
                '/' if self.rest().starts_with("/*") => self.comment(start)?,
                '$' => self.dollar(start)?,
                ':' if self.rest().starts_with("::") || self.rest().starts_with(":=") => self.at += 2,
                ':' => self.parameter(start),
                ';' => {
                    end.get_or_insert_with(|| {
                        let text = self.text.get(self.from..start).unwrap_or_default().to_owned();
                        self.pieces.push(Piece::Sql(text));
                        start
                    });
                    self.at += 1;
                }
                '?' => {
                    self.question_mark.get_or_insert(start..start + 1);
                    self.at += 1;
                }
                c if c.is_alphabetic() || c == '_' => {
                    let length: usize = self
                        .rest()
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .map(char::len_utf8)
                        .sum();
                    let word = self.rest().get(..length).unwrap_or_default().to_uppercase();
                    self.at += length;
                    self.words.push(word);
                }
                c => self.at += c.len_utf8(),
            }
        }
        if end.is_none() {
            self.sql_until(self.text.len());
        }
        Ok(end.unwrap_or(self.text.len()))
    }

    /// Whether a letter, digit or `_` stands so many characters before a place: then a letter there is the end of a word.
    fn word_before(&self, at: usize, back: usize) -> bool {
        let before = self.text.get(..at).and_then(|text| text.chars().rev().nth(back - 1));
        before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn quoted(&mut self, quote: char, start: usize, escapes: bool) -> Result<(), BadStatement> {
        while let Some(c) = self.next() {
            self.at += c.len_utf8();
            if escapes && c == '\\' {
                self.at += self.next().map_or(0, char::len_utf8);
            } else if c == quote {
                if self.next() != Some(quote) {
                    return Ok(());
                }
                self.at += 1;
            }
        }
        Err(BadStatement { what: "this quote is not closed".to_owned(), part: start..start + 1 })
    }

    /// Comments may stand in comments, as in PostgreSQL and SQL Server.
    fn comment(&mut self, start: usize) -> Result<(), BadStatement> {
        let mut depth = 0_u32;
        while let Some(c) = self.next() {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                self.at += c.len_utf8();
            }
        }
        Err(BadStatement { what: "this comment is not closed".to_owned(), part: start..start + 2 })
    }

    /// A dollar quote `$tag$ … $tag$`; a `$1` of the file's own would get in the way of ours.
    fn dollar(&mut self, start: usize) -> Result<(), BadStatement> {
        let in_word = self.before().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = self.rest().get(1..).unwrap_or_default();
        let tag: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let closed = rest.get(tag.len()..).is_some_and(|rest| rest.starts_with('$'));
        if !in_word && tag.starts_with(|c: char| c.is_ascii_digit()) {
            let what = "parameters are written `:name`, not `$1`".to_owned();
            return Err(BadStatement { what, part: start..start + 1 + tag.len() });
        }
        if in_word || !closed {
            self.at += 1;
            return Ok(());
        }
        let mark = format!("${tag}$");
        self.at += mark.len();
        self.skip_past(&mark, start, "this dollar quote")
    }

    fn parameter(&mut self, start: usize) {
        // `a[1:n]` is a slice of an array.
        let in_word = self.before().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = self.rest().get(1..).unwrap_or_default();
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        self.at += 1;
        if in_word || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return;
        }
        self.sql_until(start);
        self.at += name.len();
        self.from = self.at;
        self.pieces.push(Piece::Parameter(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Statement {
        Statement::parse("x.sql", "", text).unwrap()
    }

    fn wrong(text: &str) -> String {
        Statement::parse("x.sql", "", text).unwrap_err().what
    }

    #[test]
    fn a_parameter_is_found_wherever_it_is_one() {
        let statement =
            parse("SELECT a FROM t WHERE a >= :cursor AND b = :b\n  AND c < :cursor ORDER  BY a;\n-- done\n");
        assert_eq!(statement.parameters(), ["cursor", "b"]);
        let (sql, names) = statement.numbered();
        assert_eq!(sql, "SELECT a FROM t WHERE a >= $1 AND b = $2\n  AND c < $1 ORDER  BY a");
        assert_eq!(names, ["cursor", "b"]);
        let (sql, names) = statement.marked();
        assert_eq!(sql, "SELECT a FROM t WHERE a >= ? AND b = ?\n  AND c < ? ORDER  BY a");
        assert_eq!(names, ["cursor", "b", "cursor"]);
        assert_eq!((statement.verb.as_str(), statement.ordered), ("SELECT", true));
    }

    #[test]
    fn a_colon_is_none_in_quotes_comments_casts_and_slices() {
        let text = "SELECT ':a', 'it''s :a', E'\\':a', \":a\", `:a`, $$:a$$, $x$ :a $$ $x$, a::text, b[1:n], '12:30' /* :a /* :a */ */ -- :a\nFROM t";
        assert_eq!(parse(text).parameters(), Vec::<&str>::new());
        assert_eq!(parse(text).numbered().0, text);
        assert_eq!(parse("SELECT some'thing' || :a").parameters(), ["a"]);
        assert_eq!(parse("CALL p(x := :a, y => :b::date)").parameters(), ["a", "b"]);
    }

    #[test]
    fn a_file_holds_exactly_one_statement() {
        assert!(wrong("-- nothing\n;").contains("no statement"));
        assert!(wrong("").contains("no statement"));
        assert!(wrong("DELETE FROM a; DELETE FROM b").contains("more than one"));
        assert!(wrong("SELECT 'x").contains("quote is not closed"));
        assert!(wrong("SELECT /* x").contains("comment is not closed"));
        assert!(wrong("SELECT $a$ x").contains("dollar quote is not closed"));
        assert!(wrong("SELECT $1").contains(":name"));
        assert_eq!(parse("SELECT ';' ; ; -- end").numbered().0, "SELECT ';' ");
    }
}
