//! Documents that many changes fall upon: they keep room for what is sold.

use super::*;
use crate::domain::limit::Limits;

/// Buys packages of so many calls until one is refused.
async fn buy_all(gateway: &Gateway, units: u64) -> (u64, ChangeError) {
    gateway.buy(units).await;
    let mut bought = 1;
    loop {
        match gateway.try_to_buy(&format!("more-{bought}"), units).await {
            Ok(_) => bought += 1,
            Err(error) => return (bought, error),
        }
    }
}

#[tokio::test]
async fn purchases_leave_room_for_leases() {
    let world = World::new();
    let gateway = world.gateway("gw-1").await;
    let (bought, refused) = buy_all(&gateway, 2).await;
    assert!(bought > 300, "{bought}");
    assert!(matches!(refused, ChangeError::Crowded(..)), "{refused:?}");
    assert!(refused.to_string().contains("buy again when some have ended"), "{refused}");
    assert_eq!(gateway.sell_out().await, 2 * bought);
    gateway.buy_more("again", 3).await;
    gateway.stop().await;
}

#[tokio::test]
async fn changes_of_an_account_take_no_leases() {
    let world = World::new();
    let gateway = world.gateway("gw-1").await;
    gateway.buy(1_000).await;
    gateway.call().await.unwrap();
    assert_eq!(gateway.pool().outstanding().0, 1);
    for _ in 0..20 {
        gateway.accounts.limit_account(&account(), Limits::default()).await.unwrap();
        eventually("the change was taken in", || !gateway.pool().has_news(Instant::now())).await;
    }
    gateway.call().await.unwrap();
    assert_eq!(gateway.pool().outstanding().0, 1);
    gateway.stop().await;
    world.settled(2).await;
}
