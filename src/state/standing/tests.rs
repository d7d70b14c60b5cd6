//! The table of states and streams, whole.

use super::*;

fn id(n: u8) -> Id {
    Id::derive("t", &[&[n]])
}

fn stream(from: u8, to: u8) -> NextStream {
    let some = |n: u8| (n > 0).then(|| id(n));
    NextStream { stream: Id::derive("s", &[&[from, to]]), from: some(from), to: some(to) }
}

fn held(n: u8) -> Held {
    Held { ids: vec![id(n), id(100 + n)], name: format!("m{n}") }
}

/// A receiving head of the given transfer.
fn run(from: u8, to: u8) -> Head {
    let next = stream(from, to);
    Head::Receiving(Unfinished { stream: next.stream, from: next.from, to: next.to })
}

fn outcome(head: Head, marks: &[u8], above: bool, way_back: bool, next: NextStream, rollback: bool, replace: bool) -> String {
    let above = if above { vec!["sanoid".to_owned()] } else { vec![] };
    let standing = Standing { head, marks: marks.iter().map(|n| held(*n)).collect(), above, way_back, checkpoint: None };
    match decide(&standing, next, Overrides { rollback, replace }) {
        Ok(plan) if plan.check_end(None).is_err() => format!("Already or {}", plan.check_end(None).unwrap_err().class.word()),
        Ok(Plan { roll_back: None, act, .. }) => format!("{act:?}"),
        Ok(Plan { roll_back: Some(held), act, .. }) => format!("back to {} {act:?}", held.name),
        Err(fault) => fault.class.word().to_owned(),
    }
}

/// Every head × every kind of next stream × {nothing, --rollback, --replace}. In each row: the head, the marks, a foreign
/// snapshot above, a way back; then the outcome of each stream as `plain / --rollback / --replace` (one word: all three alike).
#[test]
fn every_state_meets_every_stream() {
    // whole to 3 · whole to 2 (a held state where marks are 1 2) · 2→3 · 2→4 · 1→3 (older mark) · 9→3 (unknown base) · 2→2 · 2→? · whole→?
    let streams = [(0, 3), (0, 2), (2, 3), (2, 4), (1, 3), (9, 3), (2, 2), (2, 0), (0, 0)];
    const ZVOL: bool = true;
    const FILE: bool = false;
    let has = "has-states/has-states/Clear";
    let late = "Already or has-states/Already or has-states/Clear";
    let back = "back to m2 Apply";
    type Row<'a> = (&'a str, Head, &'a [u8], bool, bool, [&'a str; 9]);
    let rows: Vec<Row> = vec![
        (
            "absent",
            Head::Absent,
            &[],
            false,
            ZVOL,
            ["Create", "Create", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "Create"],
        ),
        (
            "blank",
            Head::Blank,
            &[],
            false,
            ZVOL,
            ["Clear", "Clear", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "Clear"],
        ),
        (
            "foreign",
            Head::Foreign,
            &[],
            false,
            ZVOL,
            [
                "foreign/foreign/Clear",
                "foreign/foreign/Clear",
                "foreign",
                "foreign",
                "foreign",
                "foreign",
                "foreign",
                "foreign",
                "foreign/foreign/Clear",
            ],
        ),
        (
            "at 2",
            Head::AtMark,
            &[1, 2],
            false,
            ZVOL,
            [has, "Already", "Apply", "Apply", "wrong-base/back to m1 Apply/wrong-base", "wrong-base", "Already", "Apply", late],
        ),
        (
            "at 2, sanoid above",
            Head::AtMark,
            &[1, 2],
            true,
            ZVOL,
            [has, "Already", "Apply", "Apply", "wrong-base/back to m1 Apply/wrong-base", "wrong-base", "Already", "Apply", late],
        ),
        (
            "written since 2",
            Head::WrittenSince,
            &[1, 2],
            false,
            ZVOL,
            [
                "written-since/has-states/Clear",
                "written-since/back to m2 Already/Clear",
                "written-since/back to m2 Apply/written-since",
                "written-since/back to m2 Apply/written-since",
                "written-since/back to m1 Apply/written-since",
                "written-since/wrong-base/written-since",
                "written-since/back to m2 Already/written-since",
                "written-since/back to m2 Apply/written-since",
                "written-since/has-states/Clear",
            ],
        ),
        (
            "receiving 2→3",
            run(2, 3),
            &[1, 2],
            false,
            ZVOL,
            [
                has,
                "back to m2 Already/back to m2 Already/Clear",
                back,
                back,
                "wrong-base/back to m1 Apply/wrong-base",
                "wrong-base",
                "back to m2 Already",
                back,
                has,
            ],
        ),
        (
            "receiving 2→3, sanoid in mid-receive",
            run(2, 3),
            &[1, 2],
            true,
            ZVOL,
            [
                has,
                "foreign-snapshot/back to m2 Already/Clear",
                "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                "wrong-base/back to m1 Apply/wrong-base",
                "wrong-base",
                "foreign-snapshot/back to m2 Already/foreign-snapshot",
                "foreign-snapshot/back to m2 Apply/foreign-snapshot",
                has,
            ],
        ),
        (
            "receiving whole 3",
            run(0, 3),
            &[],
            false,
            ZVOL,
            ["Clear", "Clear", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "wrong-base", "Clear"],
        ),
        (
            "receiving 2→?",
            run(2, 0),
            &[1, 2],
            false,
            ZVOL,
            [
                has,
                "back to m2 Already/back to m2 Already/Clear",
                back,
                back,
                "wrong-base/back to m1 Apply/wrong-base",
                "wrong-base",
                "back to m2 Already",
                back,
                has,
            ],
        ),
        (
            "file at 2",
            Head::AtMark,
            &[2],
            false,
            FILE,
            [has, "Already", "Apply", "Apply", "wrong-base", "wrong-base", "Already", "Apply", late],
        ),
        (
            "file receiving 2→3",
            run(2, 3),
            &[2],
            false,
            FILE,
            ["Clear", "Clear", "Apply", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "Clear"],
        ),
        (
            "file receiving whole",
            run(0, 0),
            &[],
            false,
            FILE,
            ["Clear", "Clear", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "unfinished", "Clear"],
        ),
        (
            "file written since",
            Head::WrittenSince,
            &[2],
            false,
            FILE,
            [
                "written-since/written-since/Clear",
                "written-since/written-since/Clear",
                "written-since",
                "written-since",
                "written-since",
                "written-since",
                "written-since",
                "written-since",
                "written-since/written-since/Clear",
            ],
        ),
    ];
    for (label, head, marks, above, way_back, expected) in rows {
        for ((from, to), expected) in streams.into_iter().zip(expected) {
            let words: Vec<&str> = expected.split('/').collect();
            for (at, (rollback, replace)) in [(false, false), (true, false), (false, true)].into_iter().enumerate() {
                let got = outcome(head.clone(), marks, above, way_back, stream(from, to), rollback, replace);
                let want = words.get(at).or(words.first()).unwrap();
                assert_eq!(&got, want, "{label}, stream {from}→{to}, --rollback {rollback}, --replace {replace}");
            }
        }
    }
}

#[test]
fn a_stream_that_ends_where_the_target_is_is_not_refused() {
    let standing =
        Standing { head: Head::AtMark, marks: vec![held(1), held(2)], above: vec![], way_back: true, checkpoint: None };
    for (next, refusal) in [(stream(0, 0), Class::HasStates), (stream(1, 0), Class::WrongBase), (stream(9, 0), Class::WrongBase)]
    {
        let plan = decide(&standing, next, Overrides::default()).unwrap();
        assert_eq!((plan.act, &plan.roll_back), (Act::Already, &None));
        assert_eq!((plan.check_end(Some(id(2))), plan.check_end(Some(id(102)))), (Ok(()), Ok(())));
        for to in [Some(id(1)), Some(id(3)), None] {
            assert_eq!(plan.check_end(to).unwrap_err().class, refusal);
        }
    }
}

#[test]
fn an_alias_counts_as_the_state() {
    let next = NextStream { stream: id(50), from: Some(id(102)), to: Some(id(3)) };
    assert_eq!(outcome(Head::AtMark, &[1, 2], false, true, next, false, false), "Apply");
}
