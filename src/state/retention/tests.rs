//! What the policy promises.

use proptest::prelude::*;

use super::*;
use crate::state::{Content, State};

const HOUR: i64 = 3600;

fn id(n: usize) -> Id {
    Id::derive("t", &[n.to_string().as_bytes()])
}

/// States, oldest first, with a nightly name each; `x` before it: of others.
fn states(times: &[(&str, i64)]) -> Vec<Candidate> {
    let state = |(n, (name, seconds)): (usize, &(&str, i64))| Candidate {
        name: name.as_bytes().to_vec(),
        other_names: vec![],
        ids: vec![id(n)],
        seconds: *seconds,
    };
    times.iter().enumerate().map(state).collect()
}

/// A nightly name.
fn name(n: usize) -> String {
    format!("2026-01-01T{n:06}Z")
}

fn at(times: &[i64]) -> Vec<Candidate> {
    let names: Vec<String> = (0..times.len()).map(name).collect();
    states(&names.iter().map(String::as_str).zip(times.iter().copied()).collect::<Vec<_>>())
}

fn policy() -> Policy {
    Policy { ours: Some(NIGHTLY.parse().unwrap()), ..Policy::default() }
}

/// The places of the states that stay.
fn kept(policy: &Policy, states: &[Candidate]) -> Vec<usize> {
    let verdicts = policy.judge(states.to_vec()).unwrap();
    verdicts.iter().enumerate().filter(|(_, verdict)| verdict.keep()).map(|(n, _)| n).collect()
}

fn grid(text: &str, times: &[i64]) -> Vec<usize> {
    kept(&Policy { grids: vec![text.parse().unwrap()], ..policy() }, &at(times))
}

#[test]
fn only_names_of_the_nightly_lines_are_ours() {
    let ours: Pattern = NIGHTLY.parse().unwrap();
    for good in ["2026-11-21T0200Z", "2026-11-21T020015Z"] {
        assert!(ours.whole.is_match(good.as_bytes()), "{good}");
    }
    for bad in [
        "",
        "2026-11-21",
        "2026-11-21T0200Z ",
        "2026-11-21T0200Z\n",
        "x2026-11-21T0200Z",
        "2026-11-21T0200ZZ",
        "2026-11-21T02001Z",
        "@2026-11-21T0200Z",
    ] {
        assert!(!ours.whole.is_match(bad.as_bytes()), "{bad:?}");
    }
    // An alternative does not open the ends.
    let two: Pattern = "a|b".parse().unwrap();
    assert!(two.whole.is_match(b"a") && !two.whole.is_match(b"ax") && !two.whole.is_match(b"xb"));
    assert!("a)|(b".parse::<Pattern>().is_err() && "(".parse::<Pattern>().is_err());
    let bytes: Pattern = "x.y".parse().unwrap();
    assert!(bytes.whole.is_match(b"x\xffy") && bytes.whole.is_match(b"x\ny"));
}

#[test]
fn foreign_names_stay_and_are_not_counted() {
    let list = states(&[("2026-01-01T0000Z", 0), ("2026-01-02T0000Z", 1), ("hand-made", 2), ("autosnap", 3)]);
    let verdicts = Policy { last: Some(1), ..policy() }.judge(list.clone()).unwrap();
    let reasons: Vec<_> = verdicts.iter().map(|verdict| verdict.reasons.clone()).collect();
    let ours = vec![Reason::Newest, Reason::Last];
    assert_eq!(reasons, [vec![], ours, vec![Reason::NotOurs], vec![Reason::NotOurs]]);
    // Now is when the newest of ours was made, not the newest of all.
    let list = states(&[("2026-01-01T0000Z", 0), ("2026-01-02T0000Z", 50), ("hand-made", 5000)]);
    assert_eq!(kept(&Policy { within: Some(Span { seconds: 60 }), ..policy() }, &list), [0, 1, 2]);
}

#[test]
fn the_newest_of_each_of_the_newest_periods_stays() {
    let day = |n: i64, hour: i64| n * DAY + hour * HOUR;
    // 5 January 1970 is a Monday: day 4.
    let times = [day(0, 1), day(3, 23), day(4, 0), day(4, 12), day(31, 0), day(32, 1), day(32, 1) + 59, day(400, 0)];
    let by = |period, most| kept(&Policy { periods: vec![(period, most)], ..policy() }, &at(&times));
    assert_eq!(by(Period::Hour, 3), [5 - 1, 6, 7]);
    assert_eq!(by(Period::Day, 2), [6, 7]);
    assert_eq!(by(Period::Day, 100), [0, 1, 3, 4, 6, 7]);
    assert_eq!(by(Period::Week, 3), [4, 6, 7], "Sunday, 1 February, and Monday are of two weeks");
    assert_eq!(by(Period::Week, 5), [1, 3, 4, 6, 7]);
    assert_eq!(by(Period::Month, 3), [3, 6, 7]);
    assert_eq!(by(Period::Year, 2), [6, 7]);
    assert_eq!(by(Period::Year, u64::MAX), [6, 7]);
    // Of two in one second, the later in the list.
    assert_eq!(kept(&Policy { periods: vec![(Period::Day, 2)], ..policy() }, &at(&[5, 5, DAY])), [1, 2]);
}

#[test]
fn within_is_seen_from_the_newest_and_half_open() {
    let within = |seconds, times: &[i64]| kept(&Policy { within: Some(Span { seconds }), ..policy() }, &at(times));
    assert_eq!(within(100, &[0, 1, 50, 100]), [1, 2, 3]);
    assert_eq!(within(101, &[0, 1, 50, 100]), [0, 1, 2, 3]);
    assert_eq!(within(1, &[i64::MIN, i64::MAX]), [1], "no overflow");
}

#[test]
fn a_grid_keeps_the_oldest_of_each_bucket() {
    // From 100: (90,100], (80,90], (70,80].
    assert_eq!(grid("3x10s", &[69, 70, 71, 80, 81, 90, 91, 95, 100]), [2, 4, 6, 8], "the newest stays for another reason");
    assert_eq!(grid("3x10s(keep=2)", &[70, 71, 72, 73, 91, 95, 99, 100]), [1, 2, 4, 5, 7]);
    assert_eq!(grid("1x10s(keep=all) | 1x10s", &[80, 81, 82, 90, 91, 92, 99, 100]), [1, 4, 5, 6, 7]);
    assert_eq!(grid("1x10s(keep=all)", &[90, 91, 100]), [1, 2]);
    assert_eq!(grid("2x1s | 1x1h", &[0, 97, 98, 99, 100]), [0, 3, 4]);
    assert_eq!(grid("18446744073709551615x1d | 18446744073709551615x30500568904943w", &[i64::MIN, 0, i64::MAX]), [0, 1, 2]);
}

#[test]
fn a_clock_set_back_lets_nothing_more_go() {
    let times = [10 * DAY, 11 * DAY, 12 * DAY, 3 * DAY];
    for policy in [
        Policy { periods: vec![(Period::Day, 1)], ..policy() },
        Policy { within: Some(Span { seconds: 1 }), ..policy() },
        Policy { grids: vec!["1x1s".parse().unwrap()], ..policy() },
    ] {
        assert_eq!(kept(&policy, &at(&times)), [0, 1, 2, 3]);
    }
    // What counts, counts in the order of the list.
    assert_eq!(kept(&Policy { last: Some(2), ..policy() }, &at(&times)), [2, 3]);
}

#[test]
fn grids_have_one_meaning() {
    for good in ["1x1h(keep=all) | 24x1h | 14x1d", "7x1d(keep=2)", " 1 x 1s ( keep=3 )|2x1m", "1x1d(keep=all)|5x1h|1x1w"] {
        assert!(good.parse::<Grid>().is_ok(), "{good}: {:?}", good.parse::<Grid>());
    }
    for bad in [
        "",
        "|",
        "1x1h|",
        "x1h",
        "1x",
        "0x1h",
        "1x0h",
        "-1x1h",
        "+1x1h",
        "1x1",
        "1x1y",
        "1x1h(",
        "1x1h()",
        "1x1h(keep=0)",
        "1x1h(keep=-1)",
        "1x1h(keep=all",
        "1x1h(all)",
        "1x1d|24x1h",
        "1x1d(keep=all)|1x2d|1x1h",
        "1x99999999999999999999s",
        "1x9999999999999999w",
    ] {
        assert!(bad.parse::<Grid>().is_err(), "{bad}");
    }
}

#[test]
fn spans_have_a_number_and_a_unit() {
    for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000), ("2w", 1_209_600)] {
        assert_eq!(text.parse(), Ok(Span { seconds }), "{text}");
    }
    for bad in ["", "s", "5", "0s", "-1s", "+1s", " 1s", "1 s", "1ss", "1y", "1.5h", "1h30m", "99999999999999w", "5é"] {
        assert!(bad.parse::<Span>().is_err(), "{bad}");
    }
    assert_eq!(["90s", "120s", "48h", "14d"].map(|text| text.parse::<Span>().unwrap().to_string()), ["90s", "2m", "2d", "2w"]);
}

#[test]
fn a_base_is_kept_by_name_alias_or_token_and_a_wrong_one_is_refused() {
    let list = StateList {
        states: [("a", 1), ("@b", 2), ("b", 2), ("c", 3), ("c", 3), ("d", 4)]
            .iter()
            .enumerate()
            .map(|(n, (name, seconds))| State { id: id(n), seconds: *seconds, bytes: 0, name: name.as_bytes().to_vec() })
            .collect(),
    };
    let all = Candidate::of_list(&list).unwrap();
    assert_eq!(all.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!((all[1].ids.as_slice(), all[2].ids.as_slice()), ([id(1), id(2)].as_slice(), [id(3), id(4)].as_slice()));
    let keep = |named: &[&str]| {
        let named = named.iter().map(|name| name.as_bytes().to_vec()).collect();
        Policy { last: Some(1), named, ..Policy::default() }.judge(all.clone())
    };
    let kept = |named: &[&str]| keep(named).unwrap().iter().filter(|v| v.keep()).map(|v| v.state.to_string()).collect::<String>();
    assert_eq!([kept(&[]), kept(&["a"]), kept(&["@b"]), kept(&["b", "c"])], ["d", "ad", "bd", "bcd"]);
    let cut = Checkpoint::begin(Some(id(1)), 9, 9).written(5, Content::State(id(4)));
    assert_eq!(kept(&[&cut.token()]), "bcd", "by any of their ids");
    let other = Checkpoint::begin(Some(id(1)), 9, 9).written(5, Content::State(id(77)));
    for (wrong, class) in
        [("e", Class::NotFound), ("@a", Class::NotFound), (&other.token(), Class::NotFound), ("resume:x", Class::Usage)]
    {
        assert_eq!(keep(&["b", wrong]).unwrap_err().class, class, "{wrong}");
    }
}

#[test]
fn one_name_at_two_times_is_no_list() {
    let state = |n, seconds| State { id: id(n), seconds, bytes: 0, name: b"a".to_vec() };
    let list = StateList { states: vec![state(1, 5), state(2, 6)] };
    assert_eq!(Candidate::of_list(&list).unwrap_err().class, Class::List);
}

#[test]
fn at_most_lets_the_oldest_go() {
    let mut verdicts = Policy { last: Some(1), ..policy() }.judge(at(&[1, 2, 3, 4, 5])).unwrap();
    at_most(&mut verdicts, 2);
    assert_eq!(verdicts.iter().map(Verdict::keep).collect::<Vec<_>>(), [false, false, true, true, true]);
    assert_eq!(verdicts[2].reasons, [Reason::Enough]);
}

#[test]
fn names_that_a_shell_would_garble_are_told() {
    let speakable = |name: &[u8]| Candidate { name: name.to_vec(), other_names: vec![], ids: vec![], seconds: 0 }.is_speakable();
    for good in ["2026-11-21T0200Z", "a.b_c-d:e+f,g%h", "zürich"] {
        assert!(speakable(good.as_bytes()), "{good}");
    }
    for bad in [
        "a b", "a\tb", "a\nb", "a'b", "a\"b", "a\\b", "-a", "a@b", "a/b", "a;b", "a$b", "a`b", "a*", "a\u{a0}b", "a{}", "~a",
        "#a",
    ] {
        assert!(!speakable(bad.as_bytes()), "{bad:?}");
    }
    assert!(!speakable(b"a\xffb"));
}

/// Times of a list, mostly ascending: nights, hours, the same second, gaps, a clock that jumps.
fn any_times() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![Just(DAY), Just(HOUR), Just(0), 1..100 * DAY, -40 * DAY..0];
    (0..2_000_000_000_i64, prop::collection::vec(step, 1..120)).prop_map(|(first, steps)| {
        let add = |at: &mut i64, step| {
            *at += step;
            Some(*at)
        };
        steps.into_iter().scan(first, add).collect()
    })
}

/// Some rules; `None` where there is none of a kind.
fn any_policy() -> impl Strategy<Value = Policy> {
    let period = prop_oneof![Just(Period::Hour), Just(Period::Day), Just(Period::Week), Just(Period::Month), Just(Period::Year)];
    let grids = prop_oneof![Just("1x1h(keep=all)|24x1h|14x1d"), Just("3x1d(keep=2)|4x1w|5x30d"), Just("30x1d")];
    let patterns = prop_oneof![Just("1Z$"), Just("7"), Just("3.Z")];
    (
        prop::option::of(1_u64..20),
        prop::collection::vec((period, 1_u64..12), 0..3),
        prop::option::of((1_u64..40_000_000).prop_map(|seconds| Span { seconds })),
        prop::collection::vec(grids.prop_map(|text| text.parse().unwrap()), 0..2),
        prop::collection::vec(patterns.prop_map(|text| text.parse().unwrap()), 0..2),
    )
        .prop_map(|(last, periods, within, grids, patterns)| Policy { last, periods, within, grids, patterns, ..policy() })
}

/// Every third name is of others.
fn mixed(times: &[i64]) -> Vec<Candidate> {
    let mut states = at(times);
    states.iter_mut().step_by(3).for_each(|state| state.name.push(b'x'));
    states
}

proptest! {
    #[test]
    fn a_rule_more_never_lets_more_go(times in any_times(), one in any_policy(), two in any_policy()) {
        let both = Policy {
            last: one.last.max(two.last),
            periods: [one.periods.clone(), two.periods.clone()].concat(),
            within: one.within.max(two.within),
            grids: [one.grids.clone(), two.grids.clone()].concat(),
            patterns: [one.patterns.clone(), two.patterns.clone()].concat(),
            ..policy()
        };
        let states = mixed(&times);
        let both = kept(&both, &states);
        for n in [kept(&one, &states), kept(&two, &states)].concat() {
            prop_assert!(both.contains(&n));
        }
    }

    #[test]
    fn the_newest_stays_and_others_never_go(times in any_times(), policy in any_policy()) {
        let states = mixed(&times);
        let kept = kept(&policy, &states);
        let newest = (0..states.len()).rfind(|n| n % 3 != 0);
        prop_assert!(newest.is_none_or(|newest| kept.contains(&newest)));
        prop_assert!((0..states.len()).step_by(3).all(|n| kept.contains(&n)));
        // And whatever others do changes nothing for ours.
        let ours: Vec<Candidate> = states.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, state)| state.clone()).collect();
        let alone: Vec<usize> = super::tests::kept(&policy, &ours).into_iter().map(|n| n / 2 * 3 + n % 2 + 1).collect();
        prop_assert_eq!(alone, kept.into_iter().filter(|n| n % 3 != 0).collect::<Vec<_>>());
    }

    #[test]
    fn what_remains_remains(times in any_times(), policy in any_policy()) {
        let states = mixed(&times);
        let left: Vec<Candidate> = kept(&policy, &states).into_iter().map(|n| states[n].clone()).collect();
        prop_assert_eq!(kept(&policy, &left).len(), left.len());
    }

    #[test]
    fn a_clock_set_back_by_one_night_lets_no_more_go_than_one_that_is_right(
        times in any_times(), back in 1..1000 * DAY, policy in any_policy()
    ) {
        let mut sorted = times;
        sorted.sort_unstable();
        let last = sorted.last().copied().unwrap_or(0);
        let right = kept(&policy, &at(&[sorted.as_slice(), &[last + DAY]].concat()));
        let wrong = kept(&Policy { last: policy.last, ..policy.clone() }, &at(&[sorted.as_slice(), &[sorted[0] - back]].concat()));
        prop_assert!(right.iter().all(|n| wrong.contains(n)), "{:?} {:?}", right, wrong);
    }
}
