//! The stable code of every failure a user can meet, with its page.
//!
//! A code never changes its meaning and is never used again for another. Its page stands in `docs/reference/codes.md`,
//! which is compiled in: `packhorse explain PH1104` prints it. A test keeps page and list together.

use std::fmt;

/// All pages, one section a code.
const PAGES: &str = include_str!("../docs/reference/codes.md");

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal;)*) => {
        /// A failure that has a name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = concat!("`", $code, "`: ", $title)] $name,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as printed: `PH1104`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// What it is called, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    // 01: packhorse.toml and what all three kinds of files have in common
    CannotReadFile = "PH0101", "a file cannot be read";
    TomlSyntax = "PH0102", "a file is not TOML";
    UnknownKey = "PH0103", "an unknown key";
    MissingKey = "PH0104", "a key is missing";
    WrongType = "PH0105", "a value has the wrong type or is out of range";
    UnknownName = "PH0106", "a name that nothing has";
    ExclusiveKeys = "PH0107", "keys that exclude each other, or none of them";
    BadDuration = "PH0108", "not a duration, rate or size";
    SecretInClear = "PH0109", "a secret stands in a file";
    SecretUnavailable = "PH0110", "a secret cannot be had";
    PlainCredentials = "PH0111", "credentials over an unencrypted connection";
    UnknownSetting = "PH0112", "a setting that the adapter does not have";
    MissingSetting = "PH0113", "a setting that the adapter needs";
    BadTemplate = "PH0114", "a template that cannot work";
    UnusedFile = "PH0115", "a file that nothing uses";
    BadAddress = "PH0116", "not an address";
    BadFingerprint = "PH0117", "no fingerprint of a host key";
    NoSubject = "PH0118", "an order among events that have no subject";
    // 02: adapters
    NoRepeat = "PH0201", "a route that makes money or a record does not say what makes a repeat safe";
    NoProbe = "PH0202", "`repeat = \"probe\"` without a probe";
    EventTakenTwice = "PH0203", "two routes can take the same event";
    PostedTwice = "PH0204", "a payment could be posted twice";
    WrongMapping = "PH0206", "a mapping that does not fit its route";
    GuardIncomplete = "PH0207", "`repeat = \"guard\"` without its guard";
    UnreachableAnswer = "PH0208", "an answer that can never be chosen";
    NameNotUnique = "PH0209", "a file name that is the same each time";
    BadStatement = "PH0230", "a file that is not one SQL statement";
    ParameterMissing = "PH0231", "a parameter of a statement that nothing gives";
    ValueUnused = "PH0232", "a value that no parameter of a statement takes";
    ReadOnly = "PH0233", "a route that would write to a database that is only read";
    CursorUnsafe = "PH0234", "a query that could pass rows over";
    NeverOpen = "PH0240", "hours that do not say when a system is open";
    // 03: mappings
    UnknownEventField = "PH0301", "a field that the event's schema does not have";
    BadPath = "PH0302", "not a path";
    RequiredFieldNotFilled = "PH0303", "a required field that nothing fills";
    CodeNotCovered = "PH0304", "a value of the schema without a counterpart in the code list";
    WrongConversion = "PH0305", "a conversion that does not fit its field";
    OneWayRow = "PH0306", "a row that works in one direction only and does not say so";
    RowTwice = "PH0307", "a field is filled twice";
    UnknownPrefix = "PH0308", "a namespace prefix that is not declared";
    LawBroken = "PH0309", "a mapping does not give back what it was given";
    CaseFailed = "PH0310", "a case does not come out as expected";
    NoCases = "PH0311", "a mapping without cases";
    MostlyRefused = "PH0312", "most generated events are refused";
    NotInLayout = "PH0313", "a place that the layout does not have";
    StillGuessed = "PH0314", "a row that is still a guess";
    NameTaken = "PH0315", "a file of that name is there already";
    NotASample = "PH0316", "a sample that cannot be used";
    // 04: schemas and code lists
    BadSchema = "PH0401", "not a JSON Schema";
    BadExample = "PH0402", "an example that its schema refuses";
    BadCodeList = "PH0403", "a code list that contradicts itself";
    UnknownKeyword = "PH0404", "a schema annotation that is missing or wrong";
    BadLayout = "PH0405", "a layout that contradicts itself";
    // 10: events as they arrive
    NotAnEvent = "PH1001", "not an event";
    EventAttributeMissing = "PH1002", "an event without one of the attributes that every event has";
    BadEventAttribute = "PH1003", "an event with an attribute that is not allowed";
    UnknownEventType = "PH1004", "an event of a type this bridge does not know";
    EventBreaksSchema = "PH1005", "an event whose data its schema refuses";
    BatchRefused = "PH1006", "a batch of events in one message";
    EventFormatUnknown = "PH1007", "an event in a format that is not read";
    AmqpOneMessage = "PH1008", "an AMQP 1.0 message that the broker did not convert";
    ContradictingHeaders = "PH1009", "headers that contradict each other";
    ContentEncodingUnknown = "PH1010", "a content encoding that is not read";
    SubjectMissing = "PH1011", "an event without a subject on a route that keeps order";
    // 11: documents
    MalformedJson = "PH1101", "not JSON";
    MalformedXml = "PH1102", "not well-formed XML";
    MalformedForm = "PH1103", "not a form";
    DocumentTooLarge = "PH1104", "a document beyond a limit";
    WrongEncoding = "PH1105", "bytes that are not in the encoding they claim";
    DtdRefused = "PH1106", "a document with a DTD";
    EntityRefused = "PH1107", "a document with an entity of its own";
    DuplicateMember = "PH1108", "a JSON object with the same member twice";
    LoneSurrogate = "PH1109", "half a character in JSON";
    NotSoap = "PH1110", "not a SOAP envelope";
    CannotWrite = "PH1111", "a value that the format cannot hold";
    MalformedCsv = "PH1112", "not CSV";
    WrongRecord = "PH1113", "a record that is not as its layout says";
    ColumnsDiffer = "PH1114", "a file whose columns are not those of its layout";
    TotalsDiffer = "PH1115", "a file whose totals do not agree with its records";
    FileCutOff = "PH1116", "a file that is cut off";
    NotText = "PH1117", "a file of another kind than expected";
    // 12: mapping at run time
    ValueMissing = "PH1201", "a value that the mapping needs is not there";
    ValueRefused = "PH1202", "a value that a conversion refuses";
    TextTooLong = "PH1203", "a text longer than the other side holds";
    UnknownCode = "PH1204", "a code that the code list does not have";
    CheckDigitWrong = "PH1205", "a check digit that does not fit";
    SumWrong = "PH1206", "amounts that do not add up";
    TemplateFailed = "PH1207", "a computed text could not be computed";
    WrongShape = "PH1208", "a document of another shape than the mapping's";
    ResultBreaksSchema = "PH1209", "a mapped event that its schema refuses";
    NoMappingApplies = "PH1210", "an answer that no mapping is for";
    CodeNotValid = "PH1211", "a code that is not valid on that day";
    ReportUnmatched = "PH1213", "a report about something that was not sent from here";
    DateRefused = "PH1214", "a day on which nothing is processed";
    // 20: sending
    SystemUnreachable = "PH2001", "a system cannot be reached";
    SystemRefuses = "PH2002", "a system refuses what was sent";
    SystemBusy = "PH2003", "a system asks to be left alone for a while";
    SystemFails = "PH2004", "a system fails";
    LoginRefused = "PH2005", "a system refuses our login";
    OutcomeUnknown = "PH2006", "nobody knows whether a request was carried out";
    AnswerUnreadable = "PH2007", "an answer that cannot be understood";
    TlsFailed = "PH2008", "a certificate is not trusted or has expired";
    RedirectRefused = "PH2009", "a system redirects us elsewhere";
    AnswerTooLarge = "PH2010", "an answer beyond the limit";
    ProbeUnclear = "PH2011", "asking did not settle what happened";
    GuardRefused = "PH2012", "the system's own lock refused a second try";
    StillOpen = "PH2013", "an earlier one of the same is still open";
    RetriesExhausted = "PH2014", "tried as often as the route allows";
    AlreadyConcluded = "PH2015", "an earlier one of the same has been concluded";
    BatchNotWritten = "PH2016", "a batch that cannot be written yet";
    // 21: receiving
    SignatureMissing = "PH2101", "a request without its signature";
    SignatureWrong = "PH2102", "a request whose signature does not fit";
    RequestStale = "PH2103", "a request outside its time window";
    NotAuthenticated = "PH2104", "a request that does not show who sent it";
    RequestTooLarge = "PH2105", "a request beyond the limit";
    SpoolFull = "PH2106", "the spool is full";
    NoSuchPath = "PH2107", "nothing is received at this path";
    // 22: files
    HostKeyChanged = "PH2201", "a server shows a host key that is not pinned";
    FolderMissing = "PH2202", "a folder or file that is not there";
    AccessDenied = "PH2203", "a folder or file that we may not use";
    NoRoom = "PH2204", "no room for a file in a system";
    BadFileName = "PH2205", "a name that is not used as a file's";
    FileChanged = "PH2206", "a file that changes while it is read";
    FileExists = "PH2207", "another file has the name already";
    FileTooLarge = "PH2208", "a file beyond the limit";
    // 23: files
    FileTwice = "PH2301", "the same file came twice";
    FileOutOfOrder = "PH2302", "files in the wrong order";
    KeyTwice = "PH2303", "a key stands twice in one extract";
    ExtractSuspicious = "PH2304", "an extract that lost or changed too much";
    ExtractSuperseded = "PH2305", "an extract that a newer one has replaced";
    SystemAway = "PH2306", "a system is away, and its route waits";
    WaitsTooLong = "PH2307", "something waits for longer than it may";
    // 24: databases
    StatementRefused = "PH2401", "a database refuses the values of a statement";
    DuplicateRow = "PH2402", "a row that is there already";
    StatementWrong = "PH2403", "a statement that the database does not understand";
    NotPermitted = "PH2404", "a database does not permit something to our user";
    RowCountDiffers = "PH2405", "a statement changed more or fewer rows than it must";
    ColumnsChanged = "PH2406", "a query's columns are not as they were";
    ColumnMissing = "PH2407", "a query without a column that is needed";
    LookTooLarge = "PH2408", "more rows in a query's overlap than one look may bring";
    NotBuiltIn = "PH2409", "a kind of database that this Packhorse was built without";
    // 30: the broker
    BrokerUnreachable = "PH3001", "the broker cannot be reached";
    BrokerLoginRefused = "PH3002", "the broker refuses our login";
    TopologyDiffers = "PH3003", "a queue or exchange is not as it must be";
    TopologyMissing = "PH3004", "a queue or exchange is missing";
    PublishReturned = "PH3005", "the broker has nowhere to put a message";
    PublishRefused = "PH3006", "the broker did not take a message";
    BrokerBlocked = "PH3007", "the broker is out of memory or disk";
    BrokerTooOld = "PH3008", "a broker version that is not supported";
    NoPermission = "PH3009", "the broker does not permit something the bridge needs";
    BrokerDeadLettered = "PH3010", "the broker itself gave a message up";
    MessageUnpublishable = "PH3011", "a message that cannot be published as it is";
    // 40: the store
    StoreUnavailable = "PH4001", "the store cannot be opened or written";
    StoreFull = "PH4002", "the disk of the store is full";
    StoreNewer = "PH4003", "the store is from a newer Packhorse";
    HeldFull = "PH4004", "more is held than the route may hold";
    StoreMoved = "PH4005", "the store was moved to another place, or has yet to be";
    StoreDamaged = "PH4006", "the store contradicts itself";
    StoreTaken = "PH4007", "a store or a file that is in use, or holds something already";
    BridgesDiffer = "PH4008", "bridges on one store read different files";
    StoreRestored = "PH4009", "the store is an older copy of itself";
    // 50: what an operator asked for
    NoSuchDeadLetter = "PH5001", "no such dead letter";
    NotReplayable = "PH5002", "a dead letter that must not be replayed just so";
    AccountDiffers = "PH5003", "the account does not close";
    UnknownCodeAsked = "PH5004", "no such code";
    ClockWrong = "PH5005", "a clock that is wrong";
    NotHeld = "PH5006", "no extract of that number waits for a person";
    NoSuchRoute = "PH5007", "no such route";
    NotPaused = "PH5008", "a route that is not paused, or is already";
    NoSuchBatch = "PH5010", "no such batch, or none that can be sealed";
    NothingHeld = "PH5011", "nothing of that subject is held";
}

impl Code {
    /// The code printed like this, if there is one. Case does not matter.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// Its page: what happened, what it means, what to do. Markdown.
    pub fn page(self) -> &'static str {
        let head = format!("## {} ", self.as_str());
        let Some(start) = PAGES.find(&head) else { return "" };
        let page = PAGES.get(start..).unwrap_or_default();
        let end = page.get(3..).and_then(|rest| rest.find("\n## ")).map_or(page.len(), |at| at + 3);
        page.get(..end).unwrap_or_default().trim_end()
    }
}

impl Code {
    /// What to do about it, in a sentence or two: the part of its page after `**What to do:**`.
    pub fn remedy(self) -> &'static str {
        const MARK: &str = "**What to do:**";
        let page = self.page();
        page.split_once(MARK).map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or_default().trim())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
