"""Mathematics only: user state, transitions, popularity, tags, embeddings, gate, evaluation."""
