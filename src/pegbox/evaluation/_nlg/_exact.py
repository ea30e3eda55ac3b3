from pegbox.evaluation._nlg._measure import Measured, Texts, mean


def exact_match(texts: Texts) -> Measured:
    """Share of predictions that equal one of their references, spaces at the ends aside."""
    pairs = zip(texts.predictions, texts.references, strict=True)
    return Measured(
        {"exact_match": mean([own.strip() in {ref.strip() for ref in refs} for own, refs in pairs])}
    )
