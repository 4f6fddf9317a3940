"""Endpoint that finds items by what they are."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from .gateway_http import GatewayError, answer
from .gateway_models import FoundItems, ScoredItem
from .gateway_openapi import answers
from .gateway_state import GatewayOf, Limit

MOST_CHARS: Final = 256

router = APIRouter(prefix="/v1", tags=["reading"])

Asked = Annotated[str, Query(alias="q", min_length=1, max_length=MOST_CHARS, description="in any language")]


@router.get(
    "/search",
    responses=answers(FoundItems, "Best first", 404, 422),
    summary="Items whose titles mean what is asked",
)
async def search(query: Asked, gateway: GatewayOf, limit: Limit = 20) -> Response:
    """Compare the query with titles by meaning; Chinese finds English and the other way round."""
    finder = gateway.finder
    if finder is None:
        raise GatewayError(404, "titles are not known here: gateway.search is off")
    found = await asyncio.to_thread(finder.search, query, limit)
    items = [ScoredItem(item_id=item_id, score=round(score, 6)) for item_id, score in found]
    return answer(FoundItems(query=query, items=items))
