"""What the content side knows: tags from pictures, titles and sounds, and titles across languages."""
