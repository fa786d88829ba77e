//! What the commands have in common that show what a router answers.

use anyhow::Result;

use crate::{
    Verdict,
    router::{Router, RouterArgs},
    watch::WatchArgs,
};

#[derive(Debug, clap::Args)]
pub(crate) struct ViewArgs {
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Tell it in lines of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl ViewArgs {
    /// Shows what `draw` makes of the router's answers, once or again and again.
    pub(crate) async fn show(
        &self,
        draw: impl AsyncFn(&Router) -> Result<(String, Verdict)>,
    ) -> Result<Verdict> {
        let router = self.router.open()?;
        self.watch.show(async || draw(&router).await).await
    }
}
