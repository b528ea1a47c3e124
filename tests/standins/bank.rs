//! A bank that writes statements: camt.053 of any size to any writer, without holding one, and a reader of them that knows
//! nothing of ours. For tests and benches.

use std::io::{self, BufRead, Write};

/// What a statement is to say.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its id.
    pub id: String,
    /// `02` or `08`.
    pub version: &'static str,
    /// The opening balance in pence.
    pub opening: i64,
    /// How many entries.
    pub entries: u64,
    /// Pence that the closing balance is told too high: a bank's mistake.
    pub mistake: i64,
}

impl Default for Statement {
    fn default() -> Statement {
        Statement { id: "202611250001".to_owned(), version: "08", opening: 100_000, entries: 10, mistake: 0 }
    }
}

/// An entry, the same for the same number: every seventh is a reversal, every eleventh pending, every fifth goes out.
struct Entry {
    pence: i64,
    out: bool,
    reversal: bool,
    pending: bool,
}

fn entry(number: u64) -> Entry {
    Entry {
        pence: 1 + (number * 7_919 % 1_000_003) as i64,
        out: number.is_multiple_of(5),
        reversal: number.is_multiple_of(7),
        pending: number.is_multiple_of(11),
    }
}

fn pounds(pence: i64) -> String {
    format!("{}.{:02}", pence.abs() / 100, pence.abs() % 100)
}

impl Statement {
    /// What it closes with, in pence.
    pub fn closing(&self) -> i64 {
        let booked = (1..=self.entries).map(entry).filter(|entry| !entry.pending);
        self.opening + booked.map(|entry| if entry.out { -entry.pence } else { entry.pence }).sum::<i64>()
    }

    /// Writes it; one entry a line.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Statement { id, version, .. } = self;
        writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
        writeln!(
            out,
            "<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}\"><BkToCstmrStmt>"
        )?;
        writeln!(out, "<GrpHdr><MsgId>STM{id}</MsgId><CreDtTm>2026-11-25T06:10:00Z</CreDtTm></GrpHdr>")?;
        writeln!(
            out,
            "<Stmt><Id>{id}</Id><ElctrncSeqNb>229</ElctrncSeqNb><CreDtTm>2026-11-25T06:10:00Z</CreDtTm>"
        )?;
        writeln!(out, "<Acct><Id><IBAN>GB33BUKB20201555555555</IBAN></Id><Ccy>GBP</Ccy></Acct>")?;
        for (code, pence) in [("OPBD", self.opening), ("CLBD", self.closing() + self.mistake)] {
            let (amount, sign) = (pounds(pence), if pence < 0 { "DBIT" } else { "CRDT" });
            writeln!(
                out,
                "<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy=\"GBP\">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd><Dt><Dt>2026-11-25</Dt></Dt></Bal>"
            )?;
        }
        for number in 1..=self.entries {
            self.write_entry(out, number)?;
        }
        writeln!(out, "</Stmt>\n</BkToCstmrStmt></Document>")
    }

    fn write_entry(&self, out: &mut impl Write, number: u64) -> io::Result<()> {
        let Entry { pence, out: goes_out, reversal, pending } = entry(number);
        let (amount, sign) = (pounds(pence), if goes_out { "DBIT" } else { "CRDT" });
        let reversal = if reversal { "<RvslInd>true</RvslInd>" } else { "" };
        let status = if pending { "PDNG" } else { "BOOK" };
        let (status, name, own) = match self.version {
            "02" => (
                status.to_owned(),
                "<Nm>A RESIDENT</Nm>".to_owned(),
                format!("<AmtDtls><TxAmt><Amt Ccy=\"GBP\">{amount}</Amt></TxAmt></AmtDtls>"),
            ),
            _ => (
                format!("<Cd>{status}</Cd>"),
                "<Pty><Nm>A RESIDENT</Nm></Pty>".to_owned(),
                format!("<Amt Ccy=\"GBP\">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd>"),
            ),
        };
        writeln!(
            out,
            "<Ntry><NtryRef>{number}</NtryRef><Amt Ccy=\"GBP\">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd>{reversal}<Sts>{status}</Sts><BookgDt><Dt>2026-11-25</Dt></BookgDt><ValDt><Dt>2026-11-25</Dt></ValDt><AcctSvcrRef>FP26329{number:09}</AcctSvcrRef><BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd><SubFmlyCd>BBDT</SubFmlyCd></Fmly></Domn></BkTxCd><NtryDtls><TxDtls><Refs><EndToEndId>NOTPROVIDED</EndToEndId></Refs>{own}<RltdPties><Dbtr>{name}</Dbtr></RltdPties><RmtInf><Ustrd>COUNCIL TAX {}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>",
            770_000_000 + number
        )
    }

    /// The whole text, for small ones.
    pub fn text(&self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

/// What a statement holds, by a reader that splits lines and looks for words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Entries in all.
    pub entries: u64,
    /// Pence that came in and went out by booked entries.
    pub booked: i64,
    /// As stated.
    pub opening: i64,
    /// As stated.
    pub closing: i64,
}

/// Reads a statement of the above.
pub fn told(reader: impl BufRead) -> Told {
    let between = |line: &str, from: &str, to: &str| -> String {
        let start = line.find(from).unwrap_or_else(|| panic!("no {from} in {line}")) + from.len();
        line[start..].split(to).next().unwrap().to_owned()
    };
    let signed = |line: &str| {
        let amount = between(line, "<Amt Ccy=\"GBP\">", "<").replace('.', "").parse::<i64>().unwrap();
        if between(line, "<CdtDbtInd>", "<") == "DBIT" { -amount } else { amount }
    };
    let mut told = Told::default();
    for line in reader.lines() {
        let line = line.unwrap();
        if line.starts_with("<Bal>") {
            let stated = signed(&line);
            if line.contains("OPBD") { told.opening = stated } else { told.closing = stated }
        }
        if line.starts_with("<Ntry>") {
            told.entries += 1;
            if line.contains("BOOK<") {
                told.booked += signed(&line);
            }
        }
    }
    told
}
