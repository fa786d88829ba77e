//! A policy built against an interface that no host serves yet.

wit_bindgen::generate!({
    inline: "
        package mrgc:policy@2.0.0;
        interface routing { describe: func() -> string; }
        world policy { export routing; }
    ",
});

#[derive(Debug)]
struct FromTheFuture;

export!(FromTheFuture);

impl exports::mrgc::policy::routing::Guest for FromTheFuture {
    fn describe() -> String {
        "from the future".to_owned()
    }
}
