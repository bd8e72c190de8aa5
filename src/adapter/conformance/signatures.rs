//! Signatures that are accepted once.

use super::*;
use crate::domain::credential::SignatureUse;
use crate::ports::replay::UsedSignature;

/// A use of a signature that is made now and good for a minute.
fn used(world: &World, name: u8) -> UsedSignature {
    let dated = world.clock.now();
    // Names differ in their first byte: that is what deals them to the store's parts.
    UsedSignature { name: KeyHash([name; 32]), dated, ends: dated.checked_add(SignedDuration::from_mins(1)).unwrap() }
}

const ROOM: usize = 100_000;

async fn note(world: &World, used: UsedSignature) -> SignatureUse {
    world.used.note_use(used, ROOM).await.unwrap()
}

pub(super) async fn a_signature_is_used_first_once_however_many_ask_at_once(world: World) {
    world.check_in().await;
    for name in 0..4 {
        let used = used(&world, name);
        let ask = |_| {
            let cache = world.used.clone();
            tokio::spawn(async move { cache.note_use(used, ROOM).await.unwrap() })
        };
        let mut said = Vec::new();
        for asked in (0..64).map(ask).collect::<Vec<_>>() {
            said.push(asked.await.unwrap());
        }
        assert_eq!(said.iter().filter(|said| **said == SignatureUse::First).count(), 1);
        assert_eq!(said.iter().filter(|said| **said == SignatureUse::Again).count(), 63);
    }
}

pub(super) async fn a_used_signature_is_remembered_until_it_is_over(world: World) {
    world.check_in().await;
    let (used, other) = (used(&world, 1), used(&world, 2));
    assert_eq!(note(&world, used).await, SignatureUse::First);
    world.pass(SignedDuration::from_secs(59));
    assert_eq!((note(&world, used).await, note(&world, other).await), (SignatureUse::Again, SignatureUse::First));
    world.pass(SignedDuration::from_millis(999));
    assert_eq!(note(&world, used).await, SignatureUse::Again);
    world.pass(SignedDuration::from_millis(1));
    assert_eq!((note(&world, used).await, note(&world, other).await), (SignatureUse::Over, SignatureUse::Over));
}

pub(super) async fn a_use_that_is_taken_back_can_be_noted_again(world: World) {
    const MAX: usize = 256;
    world.check_in().await;
    let (used, other) = (used(&world, 1), used(&world, 2));
    assert_eq!((note(&world, used).await, note(&world, other).await), (SignatureUse::First, SignatureUse::First));
    for _ in 0..2 {
        world.used.take_back(used).await.unwrap();
    }
    assert_eq!((note(&world, used).await, note(&world, used).await), (SignatureUse::First, SignatureUse::Again));
    assert_eq!(note(&world, other).await, SignatureUse::Again);
    // What is taken back takes no room, however often.
    for _ in 0..3 * MAX {
        world.used.take_back(used).await.unwrap();
        assert_eq!(world.used.note_use(used, MAX).await.unwrap(), SignatureUse::First);
    }
}

pub(super) async fn no_used_signature_makes_room_for_another_before_it_is_over(world: World) {
    const MAX: usize = 256;
    world.check_in().await;
    // All in one part of the store, which has the least room.
    let named = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let mut name = [7; 32];
        (name[1], name[2]) = (high, low);
        UsedSignature { name: KeyHash(name), ..used(&world, 7) }
    };
    let mut kept = Vec::new();
    let full = loop {
        let next = named(u16::try_from(kept.len()).unwrap());
        let said = world.used.note_use(next, MAX).await.unwrap();
        if said != SignatureUse::First {
            break (said, next);
        }
        kept.push(next);
        assert!(kept.len() <= MAX);
    };
    assert!(!kept.is_empty());
    assert_eq!(full.0, SignatureUse::Full);
    for known in &kept {
        assert_eq!(world.used.note_use(*known, MAX).await.unwrap(), SignatureUse::Again);
    }
    assert_eq!(world.used.note_use(full.1, MAX).await.unwrap(), SignatureUse::Full);
    world.pass(SignedDuration::from_mins(1));
    let later = UsedSignature { name: full.1.name, ..used(&world, 7) };
    assert_eq!(world.used.note_use(later, MAX).await.unwrap(), SignatureUse::First);
}

pub(super) async fn what_a_store_may_have_forgotten_is_not_taken_for_new(world: World) {
    let Some(restart) = &world.restart else { return };
    world.check_in().await;
    let (known, unknown) = (used(&world, 1), used(&world, 2));
    assert_eq!(note(&world, known).await, SignatureUse::First);
    world.pass(SignedDuration::from_secs(1));
    restart();
    let meanwhile = used(&world, 3);
    assert_eq!(note(&world, meanwhile).await, SignatureUse::Unsure, "nobody has checked in");
    world.pass(SignedDuration::from_secs(1));
    world.check_in().await;
    assert_eq!(note(&world, known).await, SignatureUse::Again);
    for dated_before in [unknown, meanwhile] {
        assert_eq!(note(&world, dated_before).await, SignatureUse::Unsure);
    }
    assert_eq!(note(&world, used(&world, 2)).await, SignatureUse::First);
}
