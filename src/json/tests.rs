use super::*;
use crate::json::canonical::canonical;
use crate::json::fields::{Fields, Length, ObjectBounds};
use crate::json::number::{Integer, MAX_SAFE, integer};
use crate::json::report::Report;

fn refused(body: &[u8]) -> Problem {
    Object::parse(body).expect_err(&String::from_utf8_lossy(body))
}

/// Reads `body` with `read` and gives the faults as `code pointer`.
fn faults(body: &str, read: impl FnOnce(&mut Fields<'_>, &mut Report)) -> Vec<String> {
    let mut report = Report::new(false);
    let mut fields = Fields::root(Object::parse(body.as_bytes()).unwrap(), &mut report);
    read(&mut fields, &mut report);
    report.faults.iter().map(|fault| format!("{} {}", fault.code, fault.pointer)).collect()
}

#[test]
fn malformed_json_is_refused_with_line_and_column() {
    for (body, line, column) in [
        (&b""[..], 1, 0),
        (b"   ", 1, 3),
        (b"{", 1, 1),
        (b"{\"a\":1,}", 1, 8),
        (b"{\"a\" 1}", 1, 6),
        (b"{\n  \"a\": trx\n}", 2, 10),
        (b"{} x", 1, 4),
        (b"{}{}", 1, 3),
        (b"[1,]", 1, 4),
        (b"nope", 1, 2),
        (b"{\"a\":01}", 1, 7),
        (b"{\"a\":'x'}", 1, 6),
        (b"{a:1}", 1, 2),
        (b"{\"a\":\"\\x\"}", 1, 8),
        (b"{\"a\":NaN}", 1, 6),
        (b"{\"a\":\"\xff\"}", 1, 7),
        (b"{\n\"a\":\"\xc3\"}", 2, 6),
        (b"{\"a\":\"\\ud800\"}", 1, 7),
        (b"{\"a\":{\"b\":[\"x\\udc00\"]}}", 1, 14),
        (b"{\"a\":\"\\ud800\\ud800\"}", 1, 7),
        (b"{\"a\":\"\\ud83d\\u0041\"}", 1, 7),
        (b"\xef\xbb\xbf{}", 1, 1),
    ] {
        let problem = refused(body);
        let shown = String::from_utf8_lossy(body);
        assert_eq!((problem.status.as_u16(), problem.code), (400, "malformed_json"), "{shown}");
        let place: Vec<_> = problem.extra.iter().map(|(name, value)| (*name, value.get().to_owned())).collect();
        assert_eq!(place, [("line", line.to_string()), ("column", column.to_string())], "{shown} {}", problem.detail);
        assert!(problem.detail.contains(&format!("line {line}, column {column}")), "{}", problem.detail);
    }
    for body in
        [&b"{\"\\ud800\":1}"[..], b"{\"a\":\"b\nc\"}", b"{\"a\":\"\0\"}", b"{\"a\":1", b"{\"a\":[1}", b"\"\\ud800\""]
    {
        assert_eq!(refused(body).code, "malformed_json", "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn json_that_is_no_object_is_of_the_wrong_type() {
    for body in [&b"[]"[..], b"[{}]", b"\"x\"", b"1", b"null", b"true", b" 1.5e3 "] {
        let problem = refused(body);
        assert_eq!((problem.code, problem.faults[0].pointer.as_str()), ("invalid_type", ""));
    }
}

#[test]
fn pairs_of_surrogates_and_escaped_backslashes_are_text() {
    for (body, text) in [
        (r#"{"a":"\ud83d\ude00"}"#, "😀"),
        (r#"{"a":"\\ud800"}"#, r"\ud800"),
        (r#"{"a":"\\\ud83d\ude00\\"}"#, r"\😀\"),
        (r#"{"a":"x\"y\u0000"}"#, "x\"y\0"),
        (r#"{"a":"plain é"}"#, "plain é"),
    ] {
        let object = Object::parse(body.as_bytes()).unwrap();
        assert_eq!(string(object.get("a").unwrap()).unwrap(), text);
    }
}

#[test]
fn nesting_has_a_limit_that_names_its_member() {
    let nested = |levels: usize| format!("{{\"x\":1,\"m\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(Object::parse(nested(127).as_bytes()).is_ok());
    let problem = refused(nested(128).as_bytes());
    assert_eq!((problem.code, problem.faults[0].pointer.as_str()), ("too_deep", "/m"));
    let array = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refused(array.as_bytes()).code, "too_deep");
    assert_eq!(refused("{\"a\":".repeat(100_000).as_bytes()).code, "malformed_json");
    let brackets_in_text = format!("{{\"a\":\"{}\\\"[[\"}}", "[".repeat(500));
    assert!(Object::parse(brackets_in_text.as_bytes()).is_ok());
}

#[test]
fn a_member_that_stands_twice_is_a_fault() {
    assert_eq!(faults(r#"{"a":1,"b":2,"\u0061":3,"a":4}"#, |_, _| {}), ["duplicate_field /a"]);
    assert_eq!(faults(r#"{"x/y":1,"x/y":2}"#, |_, _| {}), ["duplicate_field /x~1y"]);
    let many: Vec<_> = (0..5000).map(|i| format!("\"m{}\":0", i % 4999)).collect();
    assert_eq!(faults(&format!("{{{}}}", many.join(",")), |_, _| {}), ["duplicate_field /m0"]);
}

#[test]
fn null_is_absent() {
    let found = faults(r#"{"a":null,"b":null}"#, |fields, report| {
        assert!(fields.optional("a").is_none());
        fields.required(report, "b");
        fields.required(report, "c");
    });
    assert_eq!(found, ["required /b", "required /c"]);
}

#[test]
fn each_type_is_named_when_it_is_wrong() {
    let body = r#"{"s":1,"b":"true","i":"1","f":1.5,"a":{},"o":[],"e":"x","n":null}"#;
    let mut report = Report::new(false);
    let mut fields = Fields::root(Object::parse(body.as_bytes()).unwrap(), &mut report);
    fields.string(&mut report, "s", Length::ANY);
    fields.optional("b").unwrap().boolean(&mut report);
    fields.optional("i").unwrap().integer(&mut report, 0..=9);
    fields.optional("f").unwrap().integer(&mut report, 0..=9);
    fields.optional("a").unwrap().array(&mut report);
    fields.optional("o").unwrap().object(&mut report);
    fields.optional("e").unwrap().choice(&mut report, &[("y", 1), ("z", 2)]);
    let messages: Vec<_> = report.faults.iter().map(|fault| format!("{} {}", fault.code, fault.message)).collect();
    assert_eq!(
        messages,
        [
            "invalid_type must be a string, is a number",
            "invalid_type must be a boolean, is a string",
            "invalid_type must be an integer, is a string",
            "invalid_type must be an integer, has a fraction",
            "invalid_type must be an array, is an object",
            "invalid_type must be an object, is an array",
            "invalid_enum must be one of y, z",
        ]
    );
}

#[test]
fn integers_are_integers_however_they_are_written() {
    for (text, number) in [
        ("0", Integer::Exact(0)),
        ("-0", Integer::Exact(0)),
        ("1.0", Integer::Exact(1)),
        ("1e3", Integer::Exact(1000)),
        ("1.5E1", Integer::Exact(15)),
        ("10e-1", Integer::Exact(1)),
        ("-5", Integer::Exact(-5)),
        ("4503599627370495", Integer::Exact(4_503_599_627_370_495)),
        ("9007199254740991", Integer::Exact(MAX_SAFE)),
        ("9007199254740991.0", Integer::Exact(MAX_SAFE)),
        ("9007199254740992", Integer::Beyond),
        ("-9007199254740992", Integer::Beyond),
        ("9223372036854775807", Integer::Beyond),
        ("-9223372036854775808", Integer::Beyond),
        ("18446744073709551616", Integer::Beyond),
        ("1e400", Integer::Beyond),
        ("-1e400", Integer::Beyond),
        ("1.5", Integer::Fraction),
        ("1e-1", Integer::Fraction),
        ("\"1\"", Integer::Other),
        ("true", Integer::Other),
        ("null", Integer::Other),
    ] {
        assert_eq!(integer(text), number, "{text}");
    }
}

#[test]
fn lengths_count_characters_or_bytes() {
    let check = |text: &str, length| {
        faults(&serde_json::json!({ "a": text }).to_string(), |fields, report| {
            fields.string(report, "a", length);
        })
    };
    assert!(check(&"é".repeat(64), Length::chars(1, 64)).is_empty());
    assert_eq!(check(&"é".repeat(65), Length::chars(1, 64)), ["too_long /a"]);
    assert_eq!(check("", Length::chars(1, 64)), ["too_short /a"]);
    assert!(check("😀", Length::chars(1, 1)).is_empty());
    assert_eq!(check("😀", Length::chars(2, 9)), ["too_short /a"]);
    assert!(check(&"é".repeat(32), Length::bytes(0, 64)).is_empty());
    assert_eq!(check(&"é".repeat(33), Length::bytes(0, 64)), ["too_long /a"]);
}

#[test]
fn free_objects_are_measured_compact_and_keep_their_digits() {
    let mut report = Report::new(false);
    let body = "{\"m\": {\"z\": 1.0,\n\t\"a\" : [1e5, 12345678901234567890, \"a \\\" b\"] }}";
    let mut fields = Fields::root(Object::parse(body.as_bytes()).unwrap(), &mut report);
    let json = fields.optional("m").unwrap().free_object(&mut report, ObjectBounds { bytes: 49, depth: 2 }).unwrap();
    assert_eq!(json.as_str(), r#"{"z":1.0,"a":[1e5,12345678901234567890,"a \" b"]}"#);
    assert_eq!(json.as_str().len(), 49);
    for (bytes, depth, found) in [(48, 2, vec!["too_large /m"]), (49, 1, vec!["too_deep /m"])] {
        let seen = faults(body, |fields, report| {
            fields.optional("m").unwrap().free_object(report, ObjectBounds { bytes, depth });
        });
        assert_eq!(seen, found);
    }
}

#[test]
fn unknown_members_are_ignored_or_in_strict_mode_refused() {
    let body = r#"{"a":1,"x/y":2,"o":{"p":1,"q":null}}"#;
    let read = |strict| {
        let mut report = Report::new(strict);
        let mut fields = Fields::root(Object::parse(body.as_bytes()).unwrap(), &mut report);
        fields.optional("a");
        let mut inner = fields.optional("o").unwrap().object(&mut report).unwrap();
        inner.optional("p");
        inner.finish(&mut report);
        fields.finish(&mut report);
        report
    };
    assert_eq!(read(false).ignored, ["o.q", "x~1y"]);
    assert!(read(false).faults.is_empty());
    let strict = read(true);
    let pointers: Vec<_> = strict.faults.iter().map(|fault| (fault.code, fault.pointer.as_str())).collect();
    assert_eq!(pointers, [("unknown_field", "/o/q"), ("unknown_field", "/x~1y")]);
}

#[test]
fn one_value_has_one_canonical_text() {
    for (text, form) in [
        (r#"{ "b": 1.0, "a": [1, 1e2] }"#, r#"{"a":[1,100],"b":1}"#),
        (r#"{"n":12345678901234567890}"#, r#"{"n":12345678901234567000}"#),
        (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#),
        (r#"{"n":-0.0,"s":"\u00e9\u000f\n/"}"#, "{\"n\":0,\"s\":\"é\\u000f\\n/\"}"),
        (r#"{ "n": 1e400 }"#, r#"{"n":1e400}"#),
        ("\"x\"", "\"x\""),
        ("[]", "[]"),
    ] {
        assert_eq!(canonical(text), form, "{text}");
    }
}

/// The items are of the wrong type, as many as a body can have.
#[test]
fn items_beyond_a_bound_or_a_full_report_are_not_read() {
    let body = format!(r#"{{"a":[{}0]}}"#, "0,".repeat(1_299_999));
    for (max, read, found) in
        [(20, 20, 21), (2_000, MAX_KEPT_FAULTS - 1, MAX_KEPT_FAULTS), (usize::MAX, MAX_KEPT_FAULTS, MAX_KEPT_FAULTS)]
    {
        let mut count = 0;
        let faults = faults(&body, |fields, report| {
            let mut items = fields.optional("a").unwrap().array(report).unwrap();
            items.at_most(max, "items", report);
            items.each(report, |item, report| {
                count += 1;
                item.wrong_type(report, "a string");
            });
            assert_eq!(items.len(), 1_300_000);
        });
        assert_eq!((count, faults.len()), (read, found), "at most {max}");
    }
}

#[test]
fn a_refusal_with_more_faults_than_it_lists_says_that_there_are_more() {
    let more = "the request has more than 1000 faults; errors lists the first 1000";
    for (count, detail) in [(1_000, "the request has 1000 faults; see errors"), (1_001, more), (5_000, more)] {
        let mut report = Report::new(false);
        for i in 0..count {
            report.fault(&path::Path::ROOT.index(i), "x", "y");
        }
        // A reader whose faults are added to those of another reader says so too.
        let problem = Report::new(false).joined(report.check().unwrap_err());
        assert_eq!((problem.listed_faults().len(), problem.detail.as_str()), (1_000, detail), "{count}");
        assert!(problem.faults.len() <= MAX_KEPT_FAULTS);
    }
}
