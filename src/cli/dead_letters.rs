//! `packhorse dead-letters`.

use super::exit;
use crate::{
    code::Code,
    config::Config,
    event,
    format::{Limits, write_json_pretty},
    letter::DeadLetter,
    ops::{Actor, Desk, Done, Refused, Which},
    store::{Opener, Store},
    tree::{Record, Tree},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::Path;

/// Look at dead letters, replay them or discard them.
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them: what failed, why, what to do. They stay where they are.
    List(List),
    /// Show one whole: its reason, its headers and its event with personal data masked.
    Show(Show),
    /// Give them back to their routes for another try.
    ///
    /// Each is published and confirmed, or stored and committed, before it leaves the queue. A message that was done
    /// before is not done again. One whose outcome is in doubt is asked about first, where the system can be asked;
    /// otherwise it takes `--not-received`.
    Replay(Replay),
    /// Remove them for good; the account keeps by whom and why.
    Discard(Discard),
}

/// Which letters.
#[derive(Debug, Clone, Args)]
struct Selection {
    /// Names of letters, as `list` shows them.
    names: Vec<String>,
    /// Only those with this code.
    #[arg(long)]
    code: Option<String>,
    /// Only those of this route.
    #[arg(long)]
    route: Option<String>,
}

impl Selection {
    fn which(&self) -> Which {
        Which { names: self.names.clone(), code: self.code.clone(), route: self.route.clone() }
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.code.is_none() && self.route.is_none()
    }
}

/// Who acts.
#[derive(Debug, Clone, Args)]
struct Acting {
    /// Your name, for the audit trail. Default: the name you are logged in with.
    #[arg(long)]
    by: Option<String>,
    /// Why, for the audit trail.
    #[arg(long)]
    reason: Option<String>,
}

impl Acting {
    fn actor(&self) -> Actor {
        Actor {
            who: self.by.clone().unwrap_or_else(super::logged_in),
            reason: self.reason.clone().unwrap_or_default(),
        }
    }
}

/// A name or a reason: not blank.
pub(super) fn some_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it is empty: the account keeps who did it and why".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// List them.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    selection: Selection,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Exit with 1 if there are any.
    #[arg(long)]
    fail_if_any: bool,
}

/// Show one.
#[derive(Debug, Args)]
pub struct Show {
    /// Its name, as `list` shows it.
    name: String,
    /// Also print the body, byte for byte. It may hold personal data: this takes a reason and is written down.
    #[arg(long, requires = "reason")]
    body: bool,
    #[command(flatten)]
    acting: Acting,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Give them back.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// All of them.
    #[arg(long, conflicts_with_all = ["names", "code", "route"])]
    all: bool,
    /// Do nothing; say which would pass today's mapping.
    #[arg(long)]
    dry_run: bool,
    /// You have looked in the system, and it has not received the request that is in doubt: send it again.
    #[arg(long)]
    not_received: bool,
    #[command(flatten)]
    acting: Acting,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Remove them.
#[derive(Debug, Args)]
pub struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Do nothing; say which would go.
    #[arg(long)]
    dry_run: bool,
    /// Your name, for the account: what is discarded is gone, so no name is guessed.
    #[arg(long, value_parser = some_text)]
    by: String,
    /// Why.
    #[arg(long, value_parser = some_text)]
    reason: String,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

impl DeadLetters {
    /// Runs it.
    pub fn run(&self, path: &Path) -> u8 {
        let config = match super::configuration(path) {
            Ok((_, config)) => config,
            Err(code) => return code,
        };
        let result = super::block_on(async {
            let store = Store::of(&config.store, Opener::Command)?;
            let desk = Desk::open(config.clone(), store).await?;
            let result = match self {
                DeadLetters::List(list) => list.run(&desk).await,
                DeadLetters::Show(show) => show.run(&desk, &config).await,
                DeadLetters::Replay(replay) => replay.run(&desk).await,
                DeadLetters::Discard(discard) => discard.run(&desk).await,
            };
            desk.close().await;
            result
        });
        match result {
            Ok(Ok(code)) => code,
            Ok(Err(refused)) => complain(&refused),
            Err(code) => code,
        }
    }
}

fn complain(refused: &Refused) -> u8 {
    super::complain(refused.code, &refused.what);
    match refused.code {
        Code::StoreUnavailable
        | Code::StoreFull
        | Code::StoreNewer
        | Code::StoreMoved
        | Code::StoreDamaged => exit::STORE,
        Code::NoSuchDeadLetter | Code::NotReplayable => exit::FOUND,
        _ => exit::UNAVAILABLE,
    }
}

impl List {
    async fn run(&self, desk: &Desk) -> Result<u8, Refused> {
        let total = desk.count().await?;
        let letters = desk.look(&self.selection.which(), self.limit).await?;
        if self.json {
            letters.iter().for_each(|(letter, _)| println!("{}", as_json(letter, Vec::new())));
        } else {
            let rows: Vec<Vec<String>> = letters
                .iter()
                .map(|(letter, _)| {
                    vec![
                        letter.name.clone(),
                        letter.code.clone(),
                        letter.route.clone(),
                        if letter.doubt { "in doubt".to_owned() } else { letter.stage.clone() },
                        letter.failed_at.chars().take(19).collect(),
                        letter.what.clone(),
                    ]
                })
                .collect();
            super::table(&["name", "code", "route", "stage", "given up at (UTC)", "what happened"], &rows);
            println!("{} shown of {total} in the dead-letter queue", letters.len());
        }
        Ok(if self.fail_if_any && !letters.is_empty() { exit::FOUND } else { 0 })
    }
}

impl Show {
    async fn run(&self, desk: &Desk, config: &Config) -> Result<u8, Refused> {
        let which = Which { names: vec![self.name.clone()], ..Which::default() };
        let found = desk.look(&which, usize::MAX).await?;
        let (letter, delivery) = match found.as_slice() {
            [one] => one,
            [] => {
                let what = format!("no dead letter's name begins with `{}`", self.name);
                return Err(Refused { code: Code::NoSuchDeadLetter, what });
            }
            more => {
                let what = format!("{} dead letters' names begin with `{}`", more.len(), self.name);
                return Err(Refused { code: Code::NoSuchDeadLetter, what });
            }
        };
        let state = desk.journal(letter).await?;
        if self.body {
            desk.opened(letter, &self.acting.actor()).await?;
        }
        let masked = masked(config, letter, &delivery.properties, &delivery.body);
        if self.json {
            use base64::{Engine as _, engine::general_purpose::STANDARD};
            let mut more = vec![
                ("headers", json!(delivery.properties.headers_for_people())),
                ("message", masked.as_ref().map(Tree::to_json).unwrap_or(Value::Null)),
            ];
            if self.body {
                more.push(("body_base64", Value::from(STANDARD.encode(&delivery.body))));
            }
            println!("{}", as_json(letter, more));
            return Ok(0);
        }
        println!("{} {}", letter.code, Code::parse(&letter.code).map_or("", Code::title));
        println!("  what happened   {}", letter.what);
        if !letter.field.is_empty() {
            println!("  field           {}", letter.field);
        }
        println!("  what to do      {}", letter.help);
        println!(
            "  route           {} (at {}, after {} attempts)",
            letter.route, letter.stage, letter.attempts
        );
        println!("  given up at     {}", letter.failed_at);
        if letter.doubt {
            println!("  in doubt        yes: a request may have been carried out");
        }
        if let Some((state, _)) = state {
            println!("  journal         {state:?}");
        }
        println!("  event           {} {} {}", letter.event_type, letter.source, letter.id);
        println!("  body            {} bytes, SHA-256 {}", delivery.body.len(), letter.sha256);
        println!("\nheaders");
        for (name, value) in delivery.properties.headers_for_people() {
            println!("  {name} = {value}");
        }
        if let Some(tree) = masked {
            println!("\nthe message, personal data masked\n{}", write_json_pretty(&tree));
        }
        if self.body {
            println!("\nthe body\n{}", String::from_utf8_lossy(&delivery.body));
        }
        Ok(0)
    }
}

/// The message with everything personal or secret masked; nothing if it cannot be read well enough to know what is.
fn masked(
    config: &Config,
    letter: &DeadLetter,
    properties: &crate::broker::Properties,
    body: &[u8],
) -> Option<Tree> {
    let accept =
        config.deliver.iter().find(|route| route.id == letter.route).map(|route| route.plan.accept)?;
    let mut event = event::decode(&properties.arrived(body), accept, &Limits::default()).ok()?;
    let schema = config.schemas.get(&event.event_type)?;
    mask(&mut event.data, &schema.root);
    Some(event.to_tree())
}

fn mask(tree: &mut Tree, field: &crate::event::schema::Field) {
    if field.personal || field.secret {
        *tree = Tree::text("(masked)");
        return;
    }
    match tree {
        Tree::Record(record) => {
            let known = |name: &str| field.fields.iter().find(|inner| inner.name == name);
            let entries = record.entries().iter().cloned().map(|(name, mut tree)| {
                match known(&name.local) {
                    Some(inner) => mask(&mut tree, inner),
                    // What the schema does not know may be anything.
                    None => tree = Tree::text("(masked: not in the schema)"),
                }
                (name, tree)
            });
            *tree = Tree::Record(entries.collect::<Record>());
        }
        Tree::List(items) => {
            if let Some(inner) = &field.items {
                items.iter_mut().for_each(|item| mask(item, inner));
            }
        }
        Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => {}
    }
}

impl Replay {
    async fn run(&self, desk: &Desk) -> Result<u8, Refused> {
        if self.selection.is_empty() && !self.all {
            super::complain(Code::NoSuchDeadLetter, "say which: names, --code, --route, or --all");
            return Ok(2);
        }
        let done = desk
            .replay(&self.selection.which(), self.dry_run, self.not_received, &self.acting.actor())
            .await?;
        let verb = if self.dry_run { "would be replayed" } else { "replayed" };
        Ok(tell(&done, verb, self.json))
    }
}

impl Discard {
    async fn run(&self, desk: &Desk) -> Result<u8, Refused> {
        if self.selection.is_empty() {
            super::complain(Code::NoSuchDeadLetter, "say which: names, --code or --route");
            return Ok(2);
        }
        let actor = Actor { who: self.by.clone(), reason: self.reason.clone() };
        let done = desk.discard(&self.selection.which(), self.dry_run, &actor).await?;
        let verb = if self.dry_run { "would be discarded" } else { "discarded" };
        Ok(tell(&done, verb, self.json))
    }
}

fn tell(done: &[Done], verb: &str, as_lines: bool) -> u8 {
    let refused = done.iter().filter(|done| done.refused.is_some()).count();
    for done in done {
        if as_lines {
            let why = |refused: &Refused| json!({ "code": refused.code.as_str(), "what": refused.what });
            let refused = done.refused.as_ref().map_or(Value::Null, why);
            println!(
                "{}",
                as_json(
                    &done.letter,
                    vec![("done", Value::from(done.refused.is_none())), ("refused", refused)]
                )
            );
            continue;
        }
        match &done.refused {
            None => println!("{verb}: {} {} {}", done.letter.name, done.letter.route, done.letter.id),
            Some(refused) => {
                println!("left where it is: {} {}: {refused}", done.letter.name, done.letter.route)
            }
        }
    }
    if !as_lines {
        println!("{} {verb}, {refused} left", done.len() - refused);
    }
    match (done.is_empty(), refused) {
        (true, _) => {
            super::complain(Code::NoSuchDeadLetter, "no dead letter fits");
            exit::FOUND
        }
        (false, 0) => 0,
        (false, _) => exit::FOUND,
    }
}

fn as_json(letter: &DeadLetter, more: Vec<(&str, Value)>) -> Value {
    let mut object = json!({
        "schema": "packhorse.dead-letter/v1",
        "name": letter.name, "key": letter.key, "route": letter.route, "code": letter.code, "stage": letter.stage,
        "field": letter.field, "what": letter.what, "help": letter.help, "failed_at": letter.failed_at,
        "attempts": letter.attempts, "replays": letter.replay, "in_doubt": letter.doubt, "item": letter.item,
        "event": { "source": letter.source, "id": letter.id, "type": letter.event_type },
        "mapping": letter.mapping, "sha256": letter.sha256,
    });
    if let Value::Object(fields) = &mut object {
        fields.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    object
}
