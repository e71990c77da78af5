"""An MCP server with one tool, for the workflow in mcp_tool.yaml. It speaks over standard input and output."""

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

shop = MCPServer("shop", log_level="WARNING")
CENTS = {"pen": 150, "book": 1990}


@shop.tool()
def price(item: str, count: int) -> dict[str, int]:
    """Tell what some of an item cost."""
    if item not in CENTS:
        raise ToolError(f"there is no {item}; there are {', '.join(CENTS)}")
    return {"cents": CENTS[item] * count}


if __name__ == "__main__":
    shop.run("stdio")
