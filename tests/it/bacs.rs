//! Bacs submissions as an independent reader sees them: code of the tests' own, by the positions that the specification prints.

/// A submission as an independent reader sees it, by the positions that the specification prints.
#[derive(Debug, Default)]
pub struct Submission {
    pub references: Vec<String>,
    pub lines: Vec<String>,
}

/// Reads a submission with one processing day and adds everything up: what does not agree fails.
pub fn read(bytes: &[u8]) -> Submission {
    read_wide(bytes, 100)
}

pub fn read_wide(bytes: &[u8], width: usize) -> Submission {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_ascii() && text.ends_with("\r\n"));
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || ".-/& ".contains(c);
    let lines: Vec<String> = text.split_terminator("\r\n").map(str::to_owned).collect();
    assert!(lines.iter().all(|line| line.chars().all(allowed)), "{text}");
    let at = |line: &str, from: usize, to: usize| line[from - 1..to].to_owned();
    let labels: Vec<&String> = lines.iter().filter(|line| line.len() == 80).collect();
    let names: Vec<String> = labels.iter().map(|line| at(line, 1, 4)).collect();
    assert_eq!(names, ["VOL1", "HDR1", "HDR2", "UHL1", "EOF1", "EOF2", "UTL1"]);
    assert_eq!(labels[1][4..], labels[4][4..], "EOF1 is HDR1");
    assert_eq!(labels[2][4..], labels[5][4..], "EOF2 is HDR2");
    assert_eq!(at(labels[0], 5, 10), at(labels[1], 22, 27), "the serial number stands twice");
    assert_ne!(at(labels[0], 5, 10), "000000");
    let (mut debits, mut credits, mut instructions) = ((0, 0), (0, 0), 0);
    let (mut items, mut contras) = (Vec::new(), Vec::new());
    let own = at(&lines[lines.len() - 4], 1, 14);
    for line in &lines[4..lines.len() - 3] {
        assert_eq!(line.len(), width, "{line:?}");
        let amount: u64 = at(line, 36, 46).parse().unwrap();
        let contra = at(line, 65, 82).trim_end() == "CONTRA";
        assert_eq!(at(line, 15, 15), "0");
        match at(line, 16, 17).as_str() {
            "01" | "17" | "18" | "19" => debits = (debits.0 + 1, debits.1 + amount),
            "99" => credits = (credits.0 + 1, credits.1 + amount),
            "0N" | "0C" | "0S" => {
                assert_eq!(amount, 0);
                instructions += 1;
            }
            code => panic!("no transaction code: {code}"),
        }
        match contra {
            true => {
                assert_eq!(at(line, 1, 14), at(line, 18, 31), "a contra is from our account to our account");
                contras.push(line.clone());
            }
            false => {
                assert!(contras.is_empty(), "contras stand behind all items");
                assert_eq!(at(line, 18, 31), own);
                items.push(at(line, 65, 82).trim_end().to_owned());
            }
        }
    }
    let trailer = labels[6];
    let number = |from, to| at(trailer, from, to).parse::<u64>().unwrap();
    assert_eq!((number(5, 17), number(18, 30)), (debits.1, credits.1), "{text}");
    assert_eq!(debits.1, credits.1, "both sides are equal");
    assert_eq!((number(31, 37), number(38, 44)), (debits.0, credits.0));
    match instructions {
        0 => assert_eq!(at(trailer, 53, 59).trim(), ""),
        count => assert_eq!(number(53, 59), count),
    }
    Submission { references: items, lines }
}

/// A day as Bacs writes it: blank, two digits of the year, the day of the year.
pub fn bacs_day(day: &str) -> String {
    let day: jiff::civil::Date = day.parse().unwrap();
    format!(" {:02}{:03}", day.year() % 100, day.day_of_year())
}
