//! One technology each, behind the traits of `ports`. Siblings never import each other.

pub mod journal;
