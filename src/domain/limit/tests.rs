//! Both sides of every edge of the limits, with a clock that is moved by hand.

use proptest::prelude::*;

use super::*;

fn limits(text: &str) -> Limits {
    serde_json::from_str(text).unwrap()
}

fn gateways(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

struct World {
    limits: Limits,
    gateways: NonZeroU32,
    used: Use,
    start: Instant,
}

impl World {
    fn of(text: &str, count: u32) -> Self {
        Self { limits: limits(text), gateways: gateways(count), used: Use::default(), start: Instant::now() }
    }

    fn check(&self, at: Duration) -> Result<(), Over> {
        self.used.check(&self.limits, self.gateways, self.start + at)
    }

    /// Lets as many calls in as fit, up to `wanted`.
    fn calls(&mut self, at: Duration, wanted: u32) -> u32 {
        let fits = |world: &mut Self| {
            let fits = world.check(at).is_ok();
            if fits {
                world.used.take(&world.limits, world.gateways, world.start + at);
            }
            fits
        };
        (0..wanted).take_while(|_| fits(self)).count().try_into().unwrap()
    }
}

#[test]
fn a_rate_lets_so_many_in_at_once_and_then_evenly() {
    let check = |text: &str, at: &[(Duration, u32)]| {
        let mut world = World::of(text, 1);
        for (at, admitted) in at {
            assert_eq!(world.calls(*at, 1_000_000), *admitted, "{text} at {at:?}");
        }
    };
    let nano = Duration::from_nanos(1);
    check(r#"{"per_second":5}"#, &[(ms(0), 5), (ms(200) - nano, 0), (ms(200), 1), (ms(1_000), 4), (ms(3_000), 5)]);
    check(r#"{"per_minute":1}"#, &[(ms(0), 1), (ms(60_000) - nano, 0), (ms(60_000), 1)]);
    check(r#"{"per_day":2}"#, &[(ms(0), 2), (ms(43_200_000) - nano, 0), (ms(43_200_000), 1)]);
    // A third of a second is no whole number of nanoseconds: after three of them nothing is lost.
    let third = Duration::from_nanos(333_333_333);
    check(r#"{"per_second":3}"#, &[(ms(0), 3), (third, 0), (third + nano, 1), (ms(1_000), 2), (ms(2_000), 3)]);
    // All limits must let a call in.
    check(r#"{"per_second":5,"per_minute":7}"#, &[(ms(0), 5), (ms(1_000), 2), (ms(2_000), 0), (ms(8_571), 0)]);
    check(r#"{"concurrent":3,"per_second":5}"#, &[(ms(0), 3), (ms(5_000), 0)]);
    check("{}", &[(ms(0), 1_000_000)]);
}

#[test]
fn the_waiting_time_is_true_to_the_nanosecond() {
    for text in
        [r#"{"per_second":7}"#, r#"{"per_minute":11}"#, r#"{"per_day":13}"#, r#"{"per_second":3,"per_minute":4}"#]
    {
        for count in 1..=4 {
            let (mut world, mut at) = (World::of(text, count), Duration::ZERO);
            for _ in 0..20 {
                world.calls(at, 1_000);
                let wait = world.check(at).unwrap_err().wait.unwrap();
                assert!(world.check(at + wait - Duration::from_nanos(1)).is_err(), "{text} {count}");
                assert_eq!(world.calls(at + wait, 1), 1, "{text} {count}");
                at += wait;
            }
        }
    }
}

#[test]
fn a_refusal_names_the_limit_that_holds_longest() {
    let mut world = World::of(r#"{"per_second":2,"per_minute":2,"concurrent":2}"#, 1);
    world.calls(ms(0), 2);
    let over = world.check(ms(0)).unwrap_err();
    assert_eq!((over.kind, over.limit, over.wait), (Kind::Minute, 2, Some(ms(30_000))));
    assert_eq!(over.fresh_in, Some(ms(60_000)));
    let over = world.check(ms(60_000)).unwrap_err();
    assert_eq!(over, Over { kind: Kind::Concurrent, limit: 2, wait: None, fresh_in: None });
    world.used.end();
    assert_eq!(world.check(ms(60_000)), Ok(()));
}

#[test]
fn what_an_answer_shows_is_the_tightest_rate() {
    let mut world = World::of(r#"{"per_second":10,"per_minute":12}"#, 1);
    let (first, second) = (world.start, world.start + ms(1_000));
    let mut take = |at| world.used.take(&world.limits, world.gateways, at).unwrap();
    let shown = |standing: Standing, at: Instant| (standing.limit, standing.left, standing.fresh_at - at);
    assert_eq!(shown(take(first), first), (10, 9, ms(100)));
    for _ in 0..8 {
        take(first);
    }
    assert_eq!(shown(take(first), first), (10, 0, ms(1_000)));
    // A second later ten more of the one, and two and a fifth of the other.
    assert_eq!(shown(take(second), second), (12, 1, ms(54_000)));
}

#[test]
fn what_is_given_back_was_never_used() {
    let mut world = World::of(r#"{"per_minute":3,"concurrent":9}"#, 1);
    assert_eq!(world.calls(ms(0), 2), 2);
    world.used.give_back(&world.limits, world.gateways, world.start);
    world.used.end();
    assert_eq!((world.used.open, world.calls(ms(0), 9)), (1, 2));
    // So late that it had run out already: no more than all can be had.
    world.used.give_back(&world.limits, world.gateways, world.start + ms(600_000));
    assert_eq!(world.calls(ms(600_000), 9), 3);
}

#[test]
fn several_gateways_share_a_rate_and_calls_under_way() {
    let check = |text: &str, count: u32, at: &[(Duration, u32)]| {
        let mut world = World::of(text, count);
        for (at, admitted) in at {
            assert_eq!(world.calls(*at, 1_000), *admitted, "{text} {count} at {at:?}");
        }
    };
    check(r#"{"per_second":10}"#, 2, &[(ms(0), 5), (ms(199), 0), (ms(200), 1)]);
    // Two and a half: two at once, and the half counts.
    check(r#"{"per_second":5}"#, 2, &[(ms(0), 2), (ms(199), 0), (ms(200), 1), (ms(10_000), 2)]);
    // Less than one each: one at a time, at the share's rate.
    check(r#"{"per_second":1}"#, 4, &[(ms(0), 1), (ms(3_999), 0), (ms(4_000), 1)]);
    check(r#"{"concurrent":5}"#, 2, &[(ms(0), 2)]);
    check(r#"{"concurrent":1}"#, 4, &[(ms(0), 1)]);
}

#[test]
fn what_was_used_stays_used_when_gateways_come_and_go_or_the_limit_changes() {
    let mut world = World::of(r#"{"per_minute":60}"#, 1);
    assert_eq!(world.calls(ms(0), 20), 20);
    world.gateways = gateways(2);
    assert_eq!(world.calls(ms(0), 100), 10, "thirty, less those before");
    world.gateways = gateways(1);
    assert_eq!(world.calls(ms(0), 100), 30);
    world.limits = limits(r#"{"per_minute":70}"#);
    assert_eq!(world.calls(ms(0), 100), 10);
    world.limits = limits(r#"{"per_minute":6}"#);
    assert_eq!(world.check(ms(0)).unwrap_err().wait, Some(ms(650_000)), "seventy, and room for one of six");
}

#[test]
fn what_holds_calls_back_matters() {
    let mut world = World::of(r#"{"per_minute":2}"#, 1);
    assert!(!world.used.matters(world.start));
    world.calls(ms(0), 2);
    world.used.end();
    world.used.end();
    assert!(world.used.matters(world.start + ms(59_999)));
    assert!(!world.used.matters(world.start + ms(60_000)));
    assert_eq!(world.calls(ms(120_000), 2), 2);
    world.used.end();
    assert!(world.used.matters(world.start + ms(300_000)), "one is under way");
}

#[test]
fn own_limits_go_before_a_products_kind_by_kind() {
    let (own, each) = (limits(r#"{"per_minute":9}"#), limits(r#"{"per_minute":3,"concurrent":2}"#));
    assert_eq!(each.where_none_of(&own), limits(r#"{"concurrent":2}"#));
    assert_eq!(each.where_none_of(&Limits::NONE), each);
    assert!(each.where_none_of(&each).is_none());
    assert!(serde_json::from_str::<Limits>(r#"{"per_minute":0}"#).is_err());
    assert!(serde_json::from_str::<Limits>(r#"{"per_hour":1}"#).is_err());
}

proptest! {
    /// In any stretch of time no more is let in than at once and evenly in it, whatever the calls' moments.
    #[test]
    fn a_rate_is_never_exceeded(calls in 1_u32..50, count in 1_u32..4, gaps in prop::collection::vec(0_u64..40_000_000, 1..300)) {
        let mut world = World::of(&format!(r#"{{"per_second":{calls}}}"#), count);
        let (mut at, mut admitted) = (0_u64, Vec::new());
        for gap in gaps {
            at += gap;
            if world.calls(Duration::from_nanos(at), 1) == 1 {
                admitted.push(at);
            }
        }
        let (calls, count) = (u128::from(calls), u128::from(count));
        for (first, from) in admitted.iter().enumerate() {
            for (last, to) in admitted.iter().enumerate().skip(first) {
                let evenly = u128::from(to - from) * calls / (1_000_000_000 * count);
                let least = (calls / count).max(1) + evenly + 1; // the share's fraction may make one whole
                prop_assert!((last - first + 1) as u128 <= least, "{} in {} ns", last - first + 1, to - from);
            }
        }
    }
}
